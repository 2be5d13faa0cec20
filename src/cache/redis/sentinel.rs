//! Sentinels: who the primary is.

use super::address::Server;
use super::trouble::Trouble;
use ::redis::{ErrorKind, RedisError, RedisResult, cmd};
use futures::future::join_all;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

/// How long a sentinel may take to answer: the others do not wait for one that hangs any longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The sentinels of a service.
#[derive(Debug)]
pub(super) struct Sentinels {
    pub(super) sentinels: Vec<Server>,
    pub(super) service: String,
    pub(super) primary: Server,
}

/// What one sentinel says.
struct Said {
    /// Grows with each failover.
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinels {
    /// The primary, as the sentinel says it that knows of the latest failover: one that was away
    /// for a while names an older one.
    pub(super) async fn primary(&self) -> Result<Server, Trouble> {
        let answers = join_all(self.sentinels.iter().map(|sentinel| async {
            let asked = timeout(PATIENCE, self.ask(sentinel)).await;
            let slow = |_| RedisError::from((ErrorKind::Io, "a sentinel does not answer"));
            asked.map_err(slow)?
        }));
        let (mut latest, mut source) = (None::<Said>, None);
        for answer in answers.await {
            match answer {
                Ok(said) if latest.as_ref().is_none_or(|l| said.epoch > l.epoch) => {
                    latest = Some(said);
                }
                Ok(_) => {}
                Err(error) => source = Some(error),
            }
        }
        match latest {
            Some(said) => Ok(self.primary.at(&said.host, said.port)),
            None => Err(Trouble::NoPrimary {
                sentinels: self.sentinels.len(),
                service: self.service.clone(),
                source,
            }),
        }
    }

    async fn ask(&self, sentinel: &Server) -> RedisResult<Said> {
        let client = sentinel.client()?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut ask = cmd("SENTINEL");
        ask.arg("MASTER").arg(&self.service);
        let fields: HashMap<String, String> = ask.query_async(&mut connection).await?;
        let field = |name: &str| fields.get(name);
        let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
        let port = number("port").and_then(|port| u16::try_from(port).ok());
        match (field("ip"), port, number("config-epoch")) {
            (Some(host), Some(port), Some(epoch)) => Ok(Said {
                epoch,
                host: host.clone(),
                port,
            }),
            _ => Err(RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "a sentinel's answer has no ip, port and config-epoch",
            ))),
        }
    }
}
