//! [`World`]: real servers, beside which the simulated ones run.

use crate::compare::{are_equal, kind};
use crate::generate::{CONNECTIONS, Step};
use crate::wire::{Connection, Item, Real, Simulated, now};
use simulated_redis::{ClusterView, Flavor, Server, Setup};

pub(crate) struct World {
    pub(crate) flavor: Flavor,
    /// The places of the real servers.
    pub(crate) addresses: Vec<String>,
    /// What each server knows about the cluster. Empty without a cluster.
    pub(crate) views: Vec<ClusterView>,
}

/// Where a simulated server has answered otherwise.
pub(crate) struct Difference {
    step: usize,
    pub(crate) connection: usize,
    pub(crate) real: Vec<Item>,
    pub(crate) simulated: Vec<Item>,
}

impl World {
    pub(crate) const fn is_clustered(&self) -> bool {
        !self.views.is_empty()
    }

    /// Makes all servers empty, with the configuration that simulated ones begin with.
    fn reset(&self) {
        for address in &self.addresses {
            let mut connection = Real::open(address);
            for line in [
                "CONFIG SET maxmemory 0",
                "CONFIG SET min-replicas-to-write 0",
                "FLUSHALL",
                "SCRIPT FLUSH",
            ] {
                connection.ask(&words(line));
            }
        }
    }

    fn simulated(&self) -> Vec<Server> {
        let servers = (0..self.addresses.len()).map(|at| {
            let mut server = Server::new(Setup::new(self.flavor, 1), now());
            if let Some(view) = self.views.get(at) {
                server.set_cluster(view.clone());
            }
            server
        });
        servers.collect()
    }

    /// Runs a history on the real and on the simulated servers. The connections are spread over
    /// the servers.
    pub(crate) fn run(&self, history: &[Step]) -> Option<Difference> {
        self.reset();
        let server_of = |connection: usize| connection % self.addresses.len();
        let reals = (0..CONNECTIONS).map(|at| Real::open(&self.addresses[server_of(at)]));
        let mut reals: Vec<_> = reals.collect();
        let mut servers = self.simulated();
        let ids = (0..CONNECTIONS).map(|at| servers[server_of(at)].connect());
        let ids: Vec<_> = ids.collect();
        let mut inputs = vec![Vec::new(); CONNECTIONS];
        for (number, step) in history.iter().enumerate() {
            // The command goes first; then each connection gives what has come.
            for turn in 0..CONNECTIONS {
                let at = (step.connection + turn) % CONNECTIONS;
                let mut simulated = Simulated {
                    server: &mut servers[server_of(at)],
                    id: ids[at],
                    input: &mut inputs[at],
                };
                let (real, simulated) = match turn {
                    0 => (reals[at].ask(&step.words), simulated.ask(&step.words)),
                    // `PING` would use up an `ASKING`.
                    _ if self.is_clustered() => continue,
                    _ => (reals[at].rest(), simulated.rest()),
                };
                let kind = kind(&step.words);
                let mut both = real.iter().zip(&simulated);
                let same = both.all(|(real, simulated)| are_equal(kind, real, simulated));
                if !same || real.len() != simulated.len() {
                    return Some(Difference {
                        step: number,
                        connection: at,
                        real,
                        simulated,
                    });
                }
            }
        }
        None
    }

    /// Leaves out steps for as long as the answers still differ.
    pub(crate) fn shorten(&self, mut history: Vec<Step>) -> (Vec<Step>, Difference) {
        let mut last = self.run(&history).expect("a difference");
        let mut size = history.len() / 2;
        while size > 0 {
            history.truncate(last.step + 1);
            let mut at = 0;
            while at + size < history.len() {
                let mut less = history.clone();
                less.drain(at..at + size);
                match self.run(&less) {
                    Some(difference) => {
                        last = difference;
                        history = less;
                    }
                    None => at += size,
                }
            }
            size /= 2;
        }
        (history, last)
    }
}

pub(crate) fn words(line: &str) -> Vec<Vec<u8>> {
    let words = line.split(' ');
    words.map(|word| word.as_bytes().to_vec()).collect()
}
