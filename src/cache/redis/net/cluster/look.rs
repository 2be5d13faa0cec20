//! Which primary serves which slots: some servers of the cluster are asked, and the map with the
//! highest epoch is used.

use super::{Cluster, Known};
use crate::cache::deadline::{Deadline, Patience};
use crate::cache::redis::net::address::{HostPort, Server};
use crate::cache::redis::net::connect_error::{ConnectError, Failure};
use crate::cache::redis::net::slots::SlotMap;
use ::redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a server of the cluster may take to send its map.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many servers are asked at once. The map of the server that knows of the latest failover is
/// used.
const MOST_ASKED: usize = 5;
/// How long to wait before asking for the map again.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Asks the cluster which primary serves a slot now.
    pub(crate) async fn primary_of(&self, slot: u16) -> Result<Server, ConnectError> {
        let map = self.look_now().await?;
        let (host, port) = map.primary_of(slot).ok_or(ConnectError::NoSlot(slot))?;
        Ok(self.server((host.clone(), *port)))
    }

    /// Asks the cluster for all primaries, and how they share the slots now.
    pub(crate) async fn shares(&self) -> Result<(Vec<HostPort>, u32), ConnectError> {
        Ok(self.look_now().await?.shares())
    }

    pub(crate) fn server(&self, (host, port): HostPort) -> Server {
        // There is at least one seed, because an address without hosts is invalid.
        self.seeds[0].at(&host, port)
    }

    /// Asks for the map in the background, because something has changed.
    pub(crate) fn look_again(&self) {
        if let (Some(cluster), Ok(runtime)) = (self.me.upgrade(), Handle::try_current()) {
            runtime.spawn(async move {
                // Another task is asking already. If its answer is from before this change, the
                // next redirection asks again.
                let Ok(mut asked) = cluster.asking.try_lock() else {
                    return;
                };
                if asked.is_none_or(|at| at.elapsed() >= PAUSE) {
                    let _ = cluster.look(&mut asked).await;
                }
            });
        }
    }

    /// Asks the cluster for its map, and returns it. One task asks at a time.
    pub(crate) async fn look_now(&self) -> Result<Arc<SlotMap>, ConnectError> {
        let mut asked = self.asking.lock().await;
        self.look(&mut asked).await
    }

    /// Asks some servers for the map, and keeps the one with the highest epoch.
    async fn look(&self, asked: &mut Option<Instant>) -> Result<Arc<SlotMap>, ConnectError> {
        let known = self.known();
        let mut servers = self.seeds.clone();
        let primaries = known.iter().flat_map(|known| known.primaries());
        servers.extend(primaries.map(|place| self.server(place)));
        servers.sort_by_key(Server::place);
        servers.dedup();
        fastrand::shuffle(&mut servers);
        servers.truncate(MOST_ASKED);
        let answers = join_all(servers.iter().map(|server| async {
            let slow = |_| RedisError::from((ErrorKind::Io, "a server does not answer"));
            timeout(PATIENCE, ask(server)).await.map_err(slow)?
        }));
        let (mut latest, mut source) = (None::<SlotMap>, None);
        for answer in answers.await {
            match answer {
                Ok(map)
                    if latest
                        .as_ref()
                        .is_none_or(|latest| map.epoch > latest.epoch) =>
                {
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
                let error = ConnectError::NoMap(source);
                tracing::debug!(%error, "no server of the cluster has sent its map");
                if known.is_none() {
                    self.map.send_replace(Known::Never(error.clone()));
                }
                Err(error)
            }
        }
    }

    fn install(&self, map: &Arc<SlotMap>) {
        let primaries = map.primaries();
        self.map.send_replace(Known::Map(Arc::clone(map)));
        let mut gone = Vec::new();
        self.connections().retain(|place, connection| {
            let stays = primaries.contains(place);
            if !stays {
                gone.push(connection.clone());
            }
            stays
        });
        for connection in gone {
            connection.close();
        }
        for place in primaries {
            self.connection_to(&place).begin();
        }
    }

    /// Returns the known map. If there is none, waits for the first answer of the cluster. If that
    /// has no map either, a removal asks again until its deadline.
    pub(super) async fn map(&self, deadline: Deadline) -> Result<Arc<SlotMap>, Failure> {
        let mut seen = self.map.subscribe();
        if self.known().is_none() {
            self.look_again();
        }
        loop {
            let known = seen.wait_for(|known| !matches!(known, Known::NotYet));
            let error = match timeout_at(deadline.at(), known).await {
                Ok(Ok(known)) => match &*known {
                    Known::Map(map) => return Ok(Arc::clone(map)),
                    Known::Never(error) => Some(Arc::new(error.clone())),
                    Known::NotYet => None,
                },
                Ok(Err(_)) | Err(_) => None,
            };
            if deadline.patience() != Patience::Removal || deadline.is_over() {
                return Err(Failure::NotAsked(error));
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
    let mut connection = server.connect(&AsyncConnectionConfig::new()).await?;
    let mut questions = Pipeline::new();
    questions.cmd("CLUSTER").arg("INFO");
    questions.cmd("CLUSTER").arg("SLOTS");
    let (info, slots): (String, Value) = questions.query_async(&mut connection).await?;
    SlotMap::read(&server.place().0, &info, &slots).ok_or_else(|| {
        RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "a server has sent a CLUSTER INFO or CLUSTER SLOTS that cannot be read",
        ))
    })
}
