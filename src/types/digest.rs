//! [`Digest`]: the name of a blob, which is a hash of its content.

use std::fmt;
use std::str::FromStr;

/// The name of a blob: a hash algorithm and the hash of the blob's content.
///
/// Each digest has exactly one text: `sha256:` and 64 lower-case hexadecimal digits, or `sha512:`
/// and 128 lower-case hexadecimal digits. [`Display`](fmt::Display) prints this text, and
/// [`FromStr`] accepts no other. This is the grammar of the [OCI image specification] for its two
/// registered algorithms.
///
/// A digest is a plain value (65 bytes, [`Copy`]). Parsing and comparing never allocate.
///
/// ```
/// use layercache::Digest;
///
/// let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// let digest: Digest = text.parse()?;
/// assert_eq!(digest.to_string(), text);
/// assert_eq!(digest.algorithm(), "sha256");
/// assert_eq!(digest.hex(), text[7..]);
/// assert_eq!(digest.as_bytes().len(), 32);
///
/// let error = "sha256:E3B0".parse::<Digest>().unwrap_err();
/// assert_eq!(error.to_string(), "invalid digest: byte 7 is not a lower-case hexadecimal digit");
/// # Ok::<(), layercache::DigestError>(())
/// ```
///
/// # Other algorithms
/// A text with another algorithm is not a digest. A path that contains it has no meaning, so the
/// cache passes calls for that path to the store. Later releases may add algorithms whose hashes
/// have at most 64 bytes, such as SHA-384 and BLAKE3. A digest then has the same size as today, and
/// an application that matches on this enum already has an arm for others.
///
/// There is no variant for unknown algorithms. Their texts have any length, so such a digest must
/// own memory, and every digest would pay for it: a copy takes 2 ns, and a clone of an enum with an
/// `Arc<str>` or `Box<str>` variant takes 11 ns, also for a SHA-256. A process-wide table of texts
/// would keep digests small, but any client could fill that table.
///
/// [OCI image specification]: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Digest {
    /// SHA-256, which every registry must support.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// Why a text is not a [`Digest`]. Positions are bytes from the start of the text.
///
/// ```
/// use layercache::{Digest, DigestError};
///
/// let error = "md5:d41d8cd9".parse::<Digest>().unwrap_err();
/// assert_eq!(error, DigestError::UnknownAlgorithm { colon: 3 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// There is no `:` between an algorithm and a hash.
    #[error("invalid digest: no `:` after the algorithm")]
    NoAlgorithm,
    /// The algorithm is neither `sha256` nor `sha512`.
    #[error("invalid digest: unknown algorithm before byte {colon}, known are sha256 and sha512")]
    UnknownAlgorithm {
        /// Where the algorithm ends.
        colon: usize,
    },
    /// The hash has a wrong number of digits.
    #[error("invalid digest: {found} digits after byte {start}, {expected} expected")]
    Length {
        /// Where the hash starts.
        start: usize,
        /// How many digits there are.
        found: usize,
        /// How many digits the algorithm has.
        expected: usize,
    },
    /// A character of the hash is not one of `0123456789abcdef`.
    #[error("invalid digest: byte {at} is not a lower-case hexadecimal digit")]
    Hex {
        /// Where that character is.
        at: usize,
    },
}

impl Digest {
    /// Returns the registered name of the algorithm: `sha256` or `sha512`.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// Returns the hash itself, 32 or 64 bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(hash) => hash,
            Self::Sha512(hash) => hash,
        }
    }

    /// Returns the hash as lower-case hexadecimal digits, the part after the `:`. Allocates once.
    pub fn hex(&self) -> String {
        let mut text = vec![0; self.as_bytes().len() * 2];
        write_hex(&mut text, self.as_bytes());
        // Hexadecimal digits are valid UTF-8.
        String::from_utf8(text).unwrap_or_default()
    }

    /// Returns whether `hex` is this hash in lower-case hexadecimal digits.
    pub(crate) fn is_hex(&self, hex: &str) -> bool {
        let (hash, hex) = (self.as_bytes(), hex.as_bytes());
        let mut pairs = hash.iter().zip(hex.chunks_exact(2));
        let is = |(byte, pair): (&u8, &[u8])| {
            pair[0] == DIGITS[usize::from(byte >> 4)] && pair[1] == DIGITS[usize::from(byte & 15)]
        };
        hex.len() == hash.len() * 2 && pairs.all(is)
    }

    /// Builds a digest from the name of an algorithm and a hash in hexadecimal digits, which are
    /// separate components of a storage path.
    pub(crate) fn from_parts(algorithm: &str, hex: &str) -> Result<Self, DigestError> {
        let start = algorithm.len() + 1;
        match algorithm {
            "sha256" => parse_hex(hex, start).map(Self::Sha256),
            "sha512" => parse_hex(hex, start).map(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm {
                colon: algorithm.len(),
            }),
        }
    }

    /// Returns whether this is the digest of the empty blob.
    pub(crate) fn is_of_nothing(&self) -> bool {
        const SHA256: &[u8; 32] =
            b"\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24\
            \x27\xae\x41\xe4\x64\x9b\x93\x4c\xa4\x95\x99\x1b\x78\x52\xb8\x55";
        const SHA512: &[u8; 64] =
            b"\xcf\x83\xe1\x35\x7e\xef\xb8\xbd\xf1\x54\x28\x50\xd6\x6d\x80\x07\
            \xd6\x20\xe4\x05\x0b\x57\x15\xdc\x83\xf4\xa9\x21\xd3\x6c\xe9\xce\
            \x47\xd0\xd1\x3c\x5d\x85\xf2\xb0\xff\x83\x18\xd2\x87\x7e\xec\x2f\
            \x63\xb9\x31\xbd\x47\x41\x7a\x81\xa5\x38\x32\x7a\xf9\x27\xda\x3e";
        match self {
            Self::Sha256(hash) => hash == SHA256,
            Self::Sha512(hash) => hash == SHA512,
        }
    }

    /// Returns the length of the printed digest in bytes.
    pub(crate) const fn text_len(&self) -> usize {
        self.algorithm().len() + 1 + self.as_bytes().len() * 2
    }
}

fn parse_hex<const N: usize>(hex: &str, start: usize) -> Result<[u8; N], DigestError> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let (mut hash, mut all) = ([0; N], 0);
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    match all < 16 && pairs.len() == N && rest.is_empty() {
        true => Ok(hash),
        false => Err(odd_hex(hex.as_bytes(), start, N * 2)),
    }
}

/// Returns the error of a hash that does not consist of `expected` digits.
fn odd_hex(hex: &[u8], start: usize, expected: usize) -> DigestError {
    match hex.iter().position(|byte| nibble(*byte).is_none()) {
        Some(at) => DigestError::Hex { at: start + at },
        None => DigestError::Length {
            start,
            found: hex.len(),
            expected,
        },
    }
}

/// The value of each digit, and a value above 15 for every other byte.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 256 {
        if let Some(nibble) = nibble(digit as u8) {
            nibbles[digit] = nibble;
        }
        digit += 1;
    }
    nibbles
};

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The length of the longest printed digest.
const MOST_TEXT: usize = Digest::Sha512([0; 64]).text_len();

/// Writes `bytes` as digits into `text`, which must be twice as long.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        Self::from_parts(algorithm, hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece, because a text that grows digit by digit is allocated many times.
        let mut text = [b':'; MOST_TEXT];
        let (text, _) = text.split_at_mut(self.text_len());
        let (algorithm, hex) = text.split_at_mut(self.algorithm().len() + 1);
        algorithm[..self.algorithm().len()].copy_from_slice(self.algorithm().as_bytes());
        write_hex(hex, self.as_bytes());
        f.write_str(std::str::from_utf8(text).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn says_where_a_text_goes_wrong() {
        let cases = [
            ("", DigestError::NoAlgorithm),
            ("sha256", DigestError::NoAlgorithm),
            (":00", DigestError::UnknownAlgorithm { colon: 0 }),
            ("SHA256:00", DigestError::UnknownAlgorithm { colon: 6 }),
            ("sha384:00", DigestError::UnknownAlgorithm { colon: 6 }),
            (
                "sha256:00",
                DigestError::Length {
                    start: 7,
                    found: 2,
                    expected: 64,
                },
            ),
            ("sha256:0G", DigestError::Hex { at: 8 }),
            ("sha256:0A", DigestError::Hex { at: 8 }),
            ("sha256:é", DigestError::Hex { at: 7 }),
            ("sha512:../", DigestError::Hex { at: 7 }),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text:?}");
        }
    }

    /// The documentation of [`Digest`] gives the reason.
    #[test]
    fn a_digest_is_small_and_owns_no_memory() {
        assert_eq!(size_of::<Digest>(), 65);
        assert!(!std::mem::needs_drop::<Digest>());
    }

    #[test]
    fn the_empty_blob_is_known_under_both_algorithms() {
        use sha2::{Digest as _, Sha256, Sha512};
        assert!(Digest::Sha256(Sha256::digest([]).into()).is_of_nothing());
        assert!(Digest::Sha512(Sha512::digest([]).into()).is_of_nothing());
        assert!(!Digest::Sha256(Sha256::digest([0]).into()).is_of_nothing());
    }

    proptest! {
        #[test]
        fn text_and_value_are_one_to_one(hash: [u8; 32], long in prop::array::uniform32(any::<u16>())) {
            let mut wide = [0; 64];
            for (pair, value) in wide.chunks_exact_mut(2).zip(long) {
                pair.copy_from_slice(&value.to_be_bytes());
            }
            for digest in [Digest::Sha256(hash), Digest::Sha512(wide)] {
                let text = digest.to_string();
                prop_assert_eq!(text.len(), digest.text_len());
                prop_assert!(digest.is_hex(&digest.hex()));
                prop_assert!(!digest.is_hex(&digest.hex()[2..]));
                prop_assert_eq!(text.parse::<Digest>(), Ok(digest));
                prop_assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
            }
        }

        #[test]
        fn any_text_is_refused_or_printed_back(text in "(sha256|sha512|x)?:?[0-9a-fA-F/.]{0,130}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Digest>();
        }
    }
}
