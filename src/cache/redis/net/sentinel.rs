//! [`Sentinels`]: how the sentinels name the primary.

use crate::cache::redis::net::address::{HostPort, Server};
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::resolve::{Checked, Located, Resolve};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, Pipeline, RedisError, RedisResult};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long sentinels may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait for the other sentinels after more than half have answered. The sentinel that
/// has just made a failover knows of it first, and may be among the others.
const GRACE: Duration = Duration::from_millis(30);

/// The sentinels that watch a service.
#[derive(Debug)]
pub(crate) struct Sentinels {
    sentinels: Vec<Server>,
    service: String,
    primary: Server,
    idle: Idle,
}

/// Connections to sentinels that are not in use now.
#[derive(Default)]
struct Idle(Mutex<HashMap<HostPort, MultiplexedConnection>>);

/// The answer of one sentinel: which server is the primary.
struct Named {
    /// The epoch of the latest failover that the sentinel knows. It grows with each failover.
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinels {
    pub(crate) fn new(sentinels: Vec<Server>, service: String, primary: Server) -> Self {
        Self {
            sentinels,
            service,
            primary,
            idle: Idle::default(),
        }
    }

    /// Returns the primary that the sentinel with the latest failover names: a sentinel that was
    /// away for a while may name an older one. More than half of the sentinels have to answer; the
    /// others get only [`GRACE`] more. The first answer with a failover after `known` counts at
    /// once.
    pub(crate) async fn find(&self, known: Option<u64>) -> Result<Located, ConnectError> {
        let began = Instant::now();
        let mut answers: FuturesUnordered<_> =
            self.sentinels.iter().map(|one| self.ask(one)).collect();
        let (mut latest, mut source, mut answered) = (None::<Named>, None, 0);
        let mut end = began + PATIENCE;
        while let Ok(Some(answer)) = timeout_at(end, answers.next()).await {
            match answer {
                Ok(named) => {
                    answered += 1;
                    let is_news = known.is_some_and(|known| named.epoch > known);
                    if latest
                        .as_ref()
                        .is_none_or(|latest| named.epoch > latest.epoch)
                    {
                        latest = Some(named);
                    }
                    if is_news {
                        break;
                    }
                    if self.is_most(answered) && !self.is_most(answered - 1) {
                        end = end.min(Instant::now() + GRACE);
                    }
                }
                Err(error) => source = Some(error),
            }
        }
        let is_news = |named: &Named| known.is_some_and(|known| named.epoch > known);
        match latest {
            Some(named) if self.is_most(answered) || is_news(&named) => Ok(Located {
                server: self.primary.at(&named.host, named.port),
                named: Some((began, named.epoch)),
            }),
            _ => Err(ConnectError::NoPrimary {
                answered,
                sentinels: self.sentinels.len(),
                service: self.service.clone(),
                source,
            }),
        }
    }

    /// Checks whether this many answers are more than half.
    fn is_most(&self, answered: usize) -> bool {
        answered * 2 > self.sentinels.len()
    }

    /// Asks a sentinel, on the connection that there is or on a new one.
    async fn ask(&self, sentinel: &Server) -> RedisResult<Named> {
        let place = sentinel.place();
        let idle = self.idle.connections().remove(&place);
        if let Some(mut connection) = idle
            && let Ok(named) = self.ask_on(&mut connection).await
        {
            self.idle.connections().insert(place, connection);
            return Ok(named);
        }
        let mut connection = sentinel.connect(&AsyncConnectionConfig::new()).await?;
        let named = self.ask_on(&mut connection).await?;
        self.idle.connections().insert(place, connection);
        Ok(named)
    }

    async fn ask_on(&self, connection: &mut MultiplexedConnection) -> RedisResult<Named> {
        // The epoch comes first, so the address is of that failover or of a later one. The address
        // in the reply to `SENTINEL MASTER` is not used: it is the old primary's until all replicas
        // follow the new one.
        let mut pipeline = Pipeline::new();
        for question in ["MASTER", "GET-MASTER-ADDR-BY-NAME"] {
            pipeline.cmd("SENTINEL").arg(question).arg(&self.service);
        }
        let (fields, address): (HashMap<String, String>, Option<(String, u16)>) =
            pipeline.query_async(connection).await?;
        let epoch = fields.get("config-epoch");
        match (address, epoch.and_then(|epoch| epoch.parse().ok())) {
            (Some((host, port)), Some(epoch)) => Ok(Named { epoch, host, port }),
            _ => Err(RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "a sentinel's answer has no address and config-epoch",
            ))),
        }
    }
}

#[async_trait]
impl Resolve for Sentinels {
    async fn locate(&self) -> Result<Located, ConnectError> {
        self.find(None).await
    }

    async fn check(&self, from: &Located) -> Checked {
        let Some((_, epoch)) = from.named else {
            return Checked::Stays;
        };
        let Ok(now) = self.find(Some(epoch)).await else {
            return Checked::Unknown;
        };
        match now.named.map(|(_, now)| now.cmp(&epoch)) {
            // All sentinels that answered have missed a failover that this node knows of.
            None | Some(Ordering::Less) => Checked::Unknown,
            Some(Ordering::Equal) if now.server == from.server => Checked::Stays,
            Some(_) => Checked::Moved,
        }
    }

    fn has_sentinels(&self) -> bool {
        true
    }
}

impl Idle {
    fn connections(&self) -> MutexGuard<'_, HashMap<HostPort, MultiplexedConnection>> {
        // Each change of it is complete, so a panic in another thread leaves it valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Idle")
    }
}
