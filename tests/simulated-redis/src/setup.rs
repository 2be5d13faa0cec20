//! [`Setup`]: how a server is configured.

/// Which server is simulated. They differ in the texts of some errors and in some details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// The oldest version that the library supports.
    Redis6_2,
    /// The version that Debian ships.
    Redis7,
    /// Version 9.
    Valkey,
}

impl Flavor {
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Redis6_2 => "6.2.5",
            Self::Redis7 => "7.0.15",
            Self::Valkey => "7.2.4",
        }
    }

    /// Returns an argument in an error's text, in the quotes that this server uses.
    pub(crate) fn quoted(self, text: &str) -> String {
        match self {
            Self::Redis6_2 => format!("`{text}`"),
            _ => format!("'{text}'"),
        }
    }
}

/// How a server is configured when it starts.
#[derive(Debug, Clone)]
pub struct Setup {
    pub flavor: Flavor,
    /// The host that the server has in the map of its cluster.
    pub host: String,
    pub port: u16,
    /// The password of the default user. `None` means that clients need none.
    pub password: Option<String>,
    /// Makes the server's identities, and chooses the keys that it evicts.
    pub seed: u64,
}

impl Setup {
    /// Returns the setup of a server of this flavor on port 6379, without a password.
    pub fn new(flavor: Flavor, seed: u64) -> Self {
        Self {
            flavor,
            host: "127.0.0.1".to_owned(),
            port: 6379,
            password: None,
            seed,
        }
    }
}

/// Random numbers that a seed decides (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns 40 hexadecimal digits, as the identities of servers have them.
    pub(crate) fn identity(&mut self) -> String {
        let parts = [self.next(), self.next(), self.next()];
        let mut digits: String = parts.iter().map(|part| format!("{part:016x}")).collect();
        digits.truncate(40);
        digits
    }
}
