//! [`Shape`]: which servers a run has.

/// How many sentinels watch a primary.
const SENTINELS: usize = 3;
/// The name of the service that the sentinels watch.
pub(crate) const SERVICE: &str = "registry";

/// The servers of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Single,
    /// A primary with this many replicas, and three sentinels.
    Sentinels {
        replicas: usize,
    },
    /// This many primaries, each with a replica.
    Cluster {
        primaries: usize,
        /// After how many milliseconds the servers count another one as silent.
        node_timeout: u64,
    },
}

impl Shape {
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u32(..4) {
            0 | 1 => Self::Single,
            2 => Self::Sentinels {
                replicas: random.usize(1..3),
            },
            _ => Self::Cluster {
                primaries: random.usize(2..4),
                node_timeout: if random.bool() { 1_000 } else { 200 },
            },
        }
    }

    /// Draws another shape, until it is one of these.
    pub(crate) fn redraw(&mut self, random: &mut fastrand::Rng, is_one: impl Fn(Self) -> bool) {
        while !is_one(*self) {
            *self = Self::draw(random);
        }
    }

    pub(crate) const fn has_two_replicas(self) -> bool {
        matches!(self, Self::Sentinels { replicas: 2 })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "one server",
            Self::Sentinels { .. } => "sentinels",
            Self::Cluster { .. } => "cluster",
        }
    }

    /// Returns the address that the nodes are given.
    pub(crate) fn url(self) -> String {
        let hosts = |servers: std::ops::Range<usize>| {
            let hosts: Vec<_> = servers.map(host).collect();
            hosts.join(",")
        };
        match self {
            Self::Single => format!("redis://{}", host(0)),
            Self::Sentinels { .. } => {
                let sentinels = hosts(self.data()..self.servers());
                format!("redis+sentinel://{sentinels}/{SERVICE}")
            }
            Self::Cluster { .. } => format!("redis+cluster://{}", hosts(0..2)),
        }
    }

    /// Counts all servers. Those with data come first, and of those the primaries.
    pub(crate) const fn servers(self) -> usize {
        match self {
            Self::Sentinels { .. } => self.data() + SENTINELS,
            _ => self.data(),
        }
    }

    pub(crate) const fn data(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Sentinels { replicas } => 1 + replicas,
            Self::Cluster { primaries, .. } => 2 * primaries,
        }
    }

    /// Counts the servers that are primaries at the beginning.
    pub(crate) const fn primaries(self) -> usize {
        match self {
            Self::Cluster { primaries, .. } => primaries,
            _ => 1,
        }
    }

    /// After how many milliseconds the servers of a cluster count another one as silent.
    pub(crate) const fn node_timeout(self) -> Option<u64> {
        match self {
            Self::Cluster { node_timeout, .. } => Some(node_timeout),
            _ => None,
        }
    }

    pub(crate) const fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster { .. })
    }
}

pub(crate) fn host(server: usize) -> String {
    format!("redis-{server}")
}
