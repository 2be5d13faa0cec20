//! Measures a pull over HTTP from an S3 whose calls take 20 ms more, with the cache and without.
//!
//! Without the cache the example works as a registry without a cache does, and as the Go registry
//! does: it asks the bucket for a blob's link (may this client have the blob?), then for its
//! description (how long is it?), then for the content. The table also gives the time with the
//! first two calls at the same time, as the typed API makes them on a miss. There a pull waits for
//! four calls in a row instead of two. The content is read each time, so no cache can do better
//! than one half.
//!
//! The image is pulled by digest. A tag may change, so every registry reads it each time.

use crate::clock::median;
use crate::common::client::{Ask, Client};
use crate::common::s3_proxy::Call;
use crate::common::stage::{Side, Stage};
use crate::table::{Row, Table, Target};
use futures::future::join_all;
use std::io;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

const DELAY: Duration = Duration::from_millis(20);
const LAYERS: usize = 10;
const ROUNDS: usize = 21;

/// How many blobs a client fetches at the same time, as skopeo does.
const PARALLEL: usize = 6;

/// The figures of a pull.
#[derive(Debug)]
struct Pull {
    /// The time from the first request to the first byte of the first layer.
    first_byte: Duration,
    all: Duration,
    calls: Vec<Call>,
}

impl Pull {
    /// Returns how many calls looked something up instead of reading content.
    fn look_ups(&self) -> usize {
        self.calls
            .iter()
            .filter(|call| !reads_content(call))
            .count()
    }
}

/// Matches `GET …/blobs/sha256/ab/<hex>/data`, and no link, list or description.
fn reads_content(call: &Call) -> bool {
    let is_content = call.target.contains("/blobs/sha256/") && call.target.ends_with("/data");
    call.method == "GET" && is_content
}

/// The same pull from three registries: two without a cache, and one with it.
#[derive(Debug)]
struct Round {
    plain: Pull,
    verified: Pull,
    cached: Pull,
}

impl Round {
    /// Returns whether the pull with the cache has read only contents, and the others have looked
    /// up everything.
    fn is_right(&self) -> bool {
        let contents = LAYERS + 2;
        let counts = |pull: &Pull| (pull.look_ups(), pull.calls.len());
        counts(&self.cached) == (0, contents)
            && [&self.plain, &self.verified].map(counts) == [(2 * contents, 3 * contents); 2]
    }
}

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let rounds = runtime.expect("a runtime").block_on(rounds());
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let Round { plain, cached, .. } = &rounds[0];
    table.add(Row {
        what: "pull of a 10-layer image from S3, warm: time to the first layer byte",
        yardstick: "the same without the cache: link, description, content; calls of 20 ms",
        target: Target::AtMost(0.5),
        ratio: of(|round| ratio(&round.cached, &round.plain)),
        detail: format!(
            "{:.1} ms against {:.1} ms, all of it {:.1} ms against {:.1} ms; {} S3 calls, {} of them look something \
             up, against {} and {}; {:.2} × of asking for link and description at the same time ({:.1} ms)",
            of(|round| millis(round.cached.first_byte)),
            of(|round| millis(round.plain.first_byte)),
            of(|round| millis(round.cached.all)),
            of(|round| millis(round.plain.all)),
            cached.calls.len(),
            cached.look_ups(),
            plain.calls.len(),
            plain.look_ups(),
            of(|round| ratio(&round.cached, &round.verified)),
            of(|round| millis(round.verified.first_byte)),
        ),
        holds: rounds.iter().all(Round::is_right),
    });
}

fn ratio(ours: &Pull, yardstick: &Pull) -> f64 {
    ours.first_byte.as_secs_f64() / yardstick.first_byte.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Pulls alternately. All registries run, and the others have no requests meanwhile.
async fn rounds() -> Vec<Round> {
    let stage = Stage::set(LAYERS, 64 << 10, DELAY).await;
    let plain = stage.ours_without_cache("plain").await;
    let verified = stage.ours_without_cache("verified").await;
    let cached = stage.ours().await;
    for side in [&plain, &verified, &cached] {
        pull(&stage, side).await;
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round {
            plain: pull(&stage, &plain).await,
            verified: pull(&stage, &verified).await,
            cached: pull(&stage, &cached).await,
        });
    }
    rounds
}

/// Pulls the manifest, and then the layers and the configuration, some at a time.
async fn pull(stage: &Stage, side: &Side) -> Pull {
    stage.proxy.take_calls();
    let pulled = fetch(stage, side).await;
    let (first_byte, all) = pulled.unwrap_or_else(|error| panic!("not pulled: {error}"));
    Pull {
        first_byte,
        all,
        calls: stage.proxy.take_calls(),
    }
}

async fn fetch(stage: &Stage, side: &Side) -> io::Result<(Duration, Duration)> {
    let mut clients = Vec::new();
    for _ in 0..PARALLEL {
        clients.push(Client::connect(&side.address()).await?);
    }
    let layers = stage.layers("GET");
    let begin = Instant::now();
    clients[0].ask(&stage.manifest()).await?;
    let blobs: Vec<_> = layers.into_iter().chain([stage.config()]).collect();
    let share = |place| blobs.iter().skip(place).step_by(PARALLEL);
    let fetches = clients.iter_mut().enumerate();
    let fetches = fetches.map(|(place, client)| in_turn(client, share(place)));
    let mut first = None;
    // The configuration is the last of a share, so the first byte is one of a layer.
    for fetched in join_all(fetches).await {
        first = first.into_iter().chain(fetched?).min();
    }
    let first = first.expect("layers");
    Ok((first - begin, begin.elapsed()))
}

/// Sends requests one after the other, and returns when the first byte of the first answer arrived.
async fn in_turn(
    client: &mut Client,
    asks: impl Iterator<Item = &Ask>,
) -> io::Result<Option<Instant>> {
    let mut first = None;
    for ask in asks {
        let came = client.ask(ask).await?;
        first.get_or_insert(came);
    }
    Ok(first)
}
