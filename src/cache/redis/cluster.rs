//! A cluster: a connection to each of its primaries, and the way from a key to the right one.

use super::address::{Place, Server};
use super::connection::{Connection, Duty};
use super::purge;
use super::route::Route;
use super::servers::{Command, Reply};
use super::session::Node;
use super::shard::Shard;
use super::slots::{SlotMap, read_place, slot_of};
use super::trouble::{Failure, Trouble};
use ::redis::{ErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a node of the cluster may take to say who serves what.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many of them are asked at once: the one that knows of the latest failover is believed.
const MOST_ASKED: usize = 5;
/// How long nobody is asked again who serves what.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a command waits until a slot that is on its way has arrived.
const ON_ITS_WAY: Duration = Duration::from_millis(2);
/// How often a purge is begun again because slots have moved meanwhile.
const MOST_PASSES: u32 = 100;

/// The primaries of a cluster.
///
/// redis-rs has a cluster client, but it repeats commands and reconnects on its own, without saying
/// which of them went through which connection: a fence that may have been lost would go unnoticed,
/// and so would a primary that has to be purged.
#[derive(Debug)]
pub(super) struct Cluster {
    me: Weak<Self>,
    seeds: Vec<Server>,
    deadline: Duration,
    map: watch::Sender<Known>,
    lines: Mutex<HashMap<Place, Connection>>,
    /// Held by the one who asks who serves what; when that was asked last.
    asking: tokio::sync::Mutex<Option<Instant>>,
    /// Whose cluster it is, and its end of the channel.
    node: OnceLock<(Arc<Node>, Connection)>,
}

/// Who serves what, as far as is known.
#[derive(Debug, Clone)]
enum Known {
    NotYet,
    Map(Arc<SlotMap>),
    /// Nobody has ever said it, and this is why.
    Never(Trouble),
}

/// Where a command goes next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    place: Place,
    /// Whether the slot is still on its way there.
    asking: bool,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Server>, deadline: Duration) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            seeds,
            deadline,
            map: watch::Sender::new(Known::NotYet),
            lines: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            node: OnceLock::new(),
        })
    }

    /// Makes it a node's, and begins to connect where there is a runtime for it. Returns the node's
    /// end of the channel: on one primary, always that which serves the slot of the set of nodes.
    pub(super) fn join(self: &Arc<Self>, node: Arc<Node>) -> Connection {
        let slot = slot_of(node.channel.nodes_key().as_bytes());
        let route = Route::Slot(Weak::clone(&self.me), slot);
        let home = Connection::new(route, Duty::Channel(Arc::clone(&node)), self.deadline);
        let (_, home) = self.node.get_or_init(|| (node, home));
        home.begin();
        home.clone()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Place, Connection>> {
        // It is whole between any two of its changes, whoever panicked.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Option<Arc<SlotMap>> {
        match &*self.map.borrow() {
            Known::Map(map) => Some(Arc::clone(map)),
            Known::NotYet | Known::Never(_) => None,
        }
    }

    /// Which connections are up, as one: what went through others may have been lost with them.
    ///
    /// One that is young is another when it has grown up: until then others may have believed the
    /// primary before, and kept what it told them.
    pub(super) fn session(&self) -> u64 {
        let Some((node, home)) = self.node.get() else {
            return 0;
        };
        let (now, doubt) = (Instant::now(), node.channel.doubt());
        let lines = self.lines();
        let sessions = lines.values().map(|line| {
            let is_young = line.since().is_none_or(|since| now < since + doubt);
            line.session().wrapping_add(u64::from(is_young))
        });
        sessions.fold(home.session(), u64::wrapping_add)
    }

    /// Since when all the connections have been up that lead to these keys; to all primaries, if
    /// none are named.
    pub(super) fn since<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Instant {
        let known = self.known();
        let named = keys.map(|key| known.as_ref()?.primary_of(slot_of(key)).cloned());
        let mut places: Vec<_> = named.collect();
        if places.is_empty() {
            let all = known.iter().flat_map(|map| map.primaries());
            places = all.map(Some).collect();
        }
        let since = places.into_iter().map(|place| self.line(&place?).since());
        let now = Instant::now();
        // Where one is not up, another one may come.
        since.map(|since| since.unwrap_or(now)).max().unwrap_or(now)
    }

    /// A name whose slot this primary serves.
    pub(super) fn tag_of(&self, place: &Place) -> Option<String> {
        self.known()?.tag_of(place)
    }

    /// The primary that serves a slot, as it is now.
    pub(super) async fn primary_of(&self, slot: u16) -> Result<Server, Trouble> {
        let map = self.look_now().await?;
        let (host, port) = map.primary_of(slot).ok_or(Trouble::NoSlot(slot))?;
        Ok(self.server((host.clone(), *port)))
    }

    fn server(&self, (host, port): Place) -> Server {
        // There is one: an address without hosts is none.
        self.seeds[0].at(&host, port)
    }

    /// Finds out who serves what, because something has changed. Waits for nothing.
    pub(super) fn look_again(&self) {
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
    async fn look_now(&self) -> Result<Arc<SlotMap>, Trouble> {
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

    /// The connection to a primary.
    fn line(&self, place: &Place) -> Connection {
        let mut lines = self.lines();
        let line = lines.entry(place.clone()).or_insert_with(|| {
            let duty = match self.node.get() {
                Some((node, home)) => Duty::Shard(Shard {
                    node: Arc::clone(node),
                    home: home.clone(),
                    cluster: Weak::clone(&self.me),
                    place: place.clone(),
                }),
                None => Duty::Plain,
            };
            let route = Route::Fixed(self.server(place.clone()));
            Connection::new(route, duty, self.deadline)
        });
        line.clone()
    }

    /// Who serves what, as far as is known; waits for the first time that it is, and no longer.
    async fn map(&self, deadline: Instant) -> Result<Arc<SlotMap>, Failure> {
        let mut seen = self.map.subscribe();
        if self.known().is_none() {
            self.look_again();
        }
        let known = seen.wait_for(|known| !matches!(known, Known::NotYet));
        let trouble = match timeout_at(deadline, known).await {
            Ok(Ok(known)) => match &*known {
                Known::Map(map) => return Ok(Arc::clone(map)),
                Known::Never(trouble) => Some(Arc::new(trouble.clone())),
                Known::NotYet => None,
            },
            Ok(Err(_)) | Err(_) => None,
        };
        Err(Failure::NotAsked(trouble))
    }

    /// Runs commands where their keys are, all at the same time. Those that are sent elsewhere go
    /// there; those whose slot is on its way wait for it.
    pub(super) async fn run(&self, commands: &[Command], deadline: Instant) -> Vec<Reply> {
        let map = match self.map(deadline).await {
            Ok(map) => map,
            Err(failure) => return commands.iter().map(|_| Err(failure.clone())).collect(),
        };
        let mut replies: Vec<Option<Reply>> = commands.iter().map(|_| None).collect();
        let mut open: BTreeMap<Turn, Vec<usize>> = BTreeMap::new();
        for (i, command) in commands.iter().enumerate() {
            let slot = slot_of(command.key());
            match map.primary_of(slot) {
                Some(place) => open.entry(Turn::to(place.clone())).or_default().push(i),
                None => {
                    self.look_again();
                    let trouble = Some(Arc::new(Trouble::NoSlot(slot)));
                    replies[i] = Some(Err(Failure::NotAsked(trouble)));
                }
            }
        }
        while !open.is_empty() {
            let turns = std::mem::take(&mut open);
            let asked = join_all(turns.iter().map(|(turn, which)| async move {
                let commands = which.iter().map(|i| &commands[*i]);
                let line = self.line(&turn.place);
                send(&line, commands, turn.asking, deadline).await
            }));
            let mut is_on_its_way = false;
            for ((turn, which), answers) in turns.iter().zip(asked.await) {
                for (i, reply) in which.iter().zip(answers) {
                    let next = self.next_turn(turn, &reply);
                    is_on_its_way |= next.as_ref() == Some(turn);
                    if let Some(next) = next.filter(|_| Instant::now() < deadline) {
                        open.entry(next).or_default().push(*i);
                    }
                    replies[*i] = Some(reply);
                }
            }
            if is_on_its_way {
                sleep(ON_ITS_WAY).await;
            }
        }
        let none = || Err(Failure::NotAsked(None));
        replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(none))
            .collect()
    }

    /// Where a command goes after this reply, if it does.
    fn next_turn(&self, turn: &Turn, reply: &Reply) -> Option<Turn> {
        let Err(Failure::Redis(error)) = reply else {
            return None;
        };
        match error.code()? {
            // Its keys are here and there: it waits until all have arrived.
            "TRYAGAIN" => Some(turn.clone()),
            code @ ("MOVED" | "ASK") => {
                let (place, _) = error.redirect_node()?;
                let place = read_place(&turn.place.0, place)?;
                let asking = code == "ASK";
                if !asking {
                    self.look_again();
                }
                Some(Turn { place, asking })
            }
            _ => None,
        }
    }

    /// Takes all leases of all primaries away, then all entries; again, if a slot has moved
    /// meanwhile, with what may not have been looked at.
    pub(super) async fn purge(&self, prefix: &str) -> Result<(), Failure> {
        let mut before = self.look_now().await;
        for _ in 0..MOST_PASSES {
            let map = before.map_err(|trouble| Failure::NotAsked(Some(Arc::new(trouble))))?;
            let lines: Vec<_> = map
                .primaries()
                .iter()
                .map(|place| self.line(place))
                .collect();
            let mut connections = Vec::with_capacity(lines.len());
            for line in &lines {
                connections.push(line.get().await?);
            }
            let mut is_whole = true;
            for connection in &mut connections {
                is_whole &= is_done(purge::leases(connection, prefix).await)?;
            }
            for connection in &mut connections {
                is_whole &= is_done(purge::entries(connection, prefix).await)?;
            }
            for connection in &mut connections {
                is_whole &= !is_moving(connection).await?;
            }
            before = self.look_now().await;
            if is_whole && before.as_ref().is_ok_and(|now| *now == map) {
                return Ok(());
            }
            sleep(ON_ITS_WAY * 10).await;
        }
        Err(Failure::Redis(RedisError::from((
            ErrorKind::Client,
            "slots were moved all the time; purge again when the cluster is at rest",
        ))))
    }

    /// Connects no more.
    pub(super) fn close(&self) {
        for line in self.lines().values() {
            line.close();
        }
    }
}

impl Turn {
    const fn to(place: Place) -> Self {
        Self {
            place,
            asking: false,
        }
    }
}

async fn send<'a>(
    line: &Connection,
    commands: impl Iterator<Item = &'a Command>,
    asking: bool,
    deadline: Instant,
) -> Vec<Reply> {
    let (mut pipeline, mut count) = (Pipeline::new(), 0);
    for command in commands {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.cmd().clone());
        count += 1;
    }
    match line.run_until(deadline, &mut pipeline).await {
        Ok(replies) => {
            let step = if asking { 2 } else { 1 };
            let replies = replies.into_iter().skip(step - 1).step_by(step);
            replies.map(|reply| reply.map_err(Failure::Redis)).collect()
        }
        Err(failure) => vec![Err(failure); count],
    }
}

/// Whether a purge has seen all; what has moved is looked at again.
fn is_done(purged: RedisResult<()>) -> Result<bool, Failure> {
    match purged {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN")) => Ok(false),
        Err(error) => Err(Failure::Redis(error)),
    }
}

/// Whether a slot is on its way to or from this server.
async fn is_moving(connection: &mut ::redis::aio::MultiplexedConnection) -> RedisResult<bool> {
    let nodes: String = cmd("CLUSTER").arg("NODES").query_async(connection).await?;
    Ok(nodes.contains("->-") || nodes.contains("-<-"))
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
