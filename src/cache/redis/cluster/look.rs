//! Who serves what: some nodes are asked, and the one that knows most is believed.

use super::{Cluster, Known};
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::redis::address::{Place, Server};
use crate::cache::redis::slots::SlotMap;
use crate::cache::redis::trouble::{Failure, Trouble};
use ::redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a node of the cluster may take to say who serves what.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many of them are asked at once: the one that knows of the latest failover is believed.
const MOST_ASKED: usize = 5;
/// How long nobody is asked again who serves what.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// The primary that serves a slot, as it is now.
    pub(in crate::cache::redis) async fn primary_of(&self, slot: u16) -> Result<Server, Trouble> {
        let map = self.look_now().await?;
        let (host, port) = map.primary_of(slot).ok_or(Trouble::NoSlot(slot))?;
        Ok(self.server((host.clone(), *port)))
    }

    /// All primaries and how they share the slots, as it is now.
    pub(in crate::cache::redis) async fn shares(&self) -> Result<(Vec<Place>, u32), Trouble> {
        Ok(self.look_now().await?.shares())
    }

    pub(in crate::cache::redis) fn server(&self, (host, port): Place) -> Server {
        // There is one: an address without hosts is none.
        self.seeds[0].at(&host, port)
    }

    /// Finds out who serves what, because something has changed. Waits for nothing.
    pub(in crate::cache::redis) fn look_again(&self) {
        if let (Some(cluster), Ok(runtime)) = (self.me.upgrade(), Handle::try_current()) {
            runtime.spawn(async move {
                // Who is asking already may have been told before it changed: its lines will say so.
                let Ok(mut asked) = cluster.asking.try_lock() else {
                    return;
                };
                if asked.is_none_or(|at| at.elapsed() >= PAUSE) {
                    let _ = cluster.look(&mut asked).await;
                }
            });
        }
    }

    /// Who serves what, as it is now or was not long ago.
    pub(in crate::cache::redis) async fn look_now(&self) -> Result<Arc<SlotMap>, Trouble> {
        let mut asked = self.asking.lock().await;
        self.look(&mut asked).await
    }

    /// Asks some nodes who serves what.
    async fn look(&self, asked: &mut Option<Instant>) -> Result<Arc<SlotMap>, Trouble> {
        let known = self.known();
        let mut servers = self.seeds.clone();
        let primaries = known.iter().flat_map(|known| known.primaries());
        servers.extend(primaries.map(|place| self.server(place)));
        servers.sort_by_key(Server::place);
        servers.dedup();
        fastrand::shuffle(&mut servers);
        servers.truncate(MOST_ASKED);
        let answers = join_all(servers.iter().map(|server| async {
            let slow = |_| RedisError::from((ErrorKind::Io, "a node does not answer"));
            timeout(PATIENCE, ask(server)).await.map_err(slow)?
        }));
        let (mut latest, mut source) = (None::<SlotMap>, None);
        for answer in answers.await {
            match answer {
                Ok(map) if latest.as_ref().is_none_or(|l| map.epoch > l.epoch) => {
                    latest = Some(map);
                }
                Ok(_) => {}
                Err(error) => source = Some(error),
            }
        }
        *asked = Some(Instant::now());
        match latest {
            Some(latest) => {
                let latest = Arc::new(latest);
                self.install(&latest);
                Ok(latest)
            }
            None => {
                let trouble = Trouble::NoMap(source);
                tracing::debug!(error = %trouble, "the cluster was asked in vain");
                if known.is_none() {
                    self.map.send_replace(Known::Never(trouble.clone()));
                }
                Err(trouble)
            }
        }
    }

    fn install(&self, map: &Arc<SlotMap>) {
        let primaries = map.primaries();
        self.map.send_replace(Known::Map(Arc::clone(map)));
        let gone: Vec<_> = self
            .lines()
            .extract_if(|place, _| !primaries.contains(place))
            .collect();
        for (_, line) in gone {
            line.close();
        }
        for place in primaries {
            self.line(&place).begin();
        }
    }

    /// Who serves what, as far as is known; waits for the first time that it is, and no longer. A
    /// removal has it found out until then.
    pub(super) async fn map(&self, deadline: Deadline) -> Result<Arc<SlotMap>, Failure> {
        let mut seen = self.map.subscribe();
        if self.known().is_none() {
            self.look_again();
        }
        loop {
            let known = seen.wait_for(|known| !matches!(known, Known::NotYet));
            let trouble = match timeout_at(deadline.at(), known).await {
                Ok(Ok(known)) => match &*known {
                    Known::Map(map) => return Ok(Arc::clone(map)),
                    Known::Never(trouble) => Some(Arc::new(trouble.clone())),
                    Known::NotYet => None,
                },
                Ok(Err(_)) | Err(_) => None,
            };
            if deadline.patience() != Patience::Removal || deadline.is_over() {
                return Err(Failure::NotAsked(trouble));
            }
            let _ = timeout_at(deadline.at(), async {
                sleep(PAUSE).await;
                self.look_now().await
            })
            .await;
        }
    }
}

async fn ask(server: &Server) -> RedisResult<SlotMap> {
    let mut connection = server.client()?.get_multiplexed_async_connection().await?;
    let mut questions = Pipeline::new();
    questions.cmd("CLUSTER").arg("INFO");
    questions.cmd("CLUSTER").arg("SLOTS");
    let (info, slots): (String, Value) = questions.query_async(&mut connection).await?;
    SlotMap::read(&server.place().0, &info, &slots).ok_or_else(|| {
        RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "a node's CLUSTER INFO and SLOTS make no sense",
        ))
    })
}
