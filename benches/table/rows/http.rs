//! Measures a HEAD over HTTP, beside the Go registry.

use crate::clock::median;
use crate::common::cell::{Cell, Watch};
use crate::common::stage::{Side, Stage};
use crate::table::{Row, Table, Target};
use std::time::Duration;
use tokio::runtime::Builder;

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 16;

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let rounds = runtime.expect("a runtime").block_on(rounds());
    let of = |figure: fn(&(Cell, Cell)) -> f64| median(rounds.iter().map(figure));
    let calls = of(|(_, ours)| ours.backend_calls);
    let commands = of(|(_, ours)| ours.redis_commands);
    table.add(Row {
        what: "HEAD over HTTP, warm, Redis on: requests for a second of CPU",
        yardstick: "docker-registry 2.8 with its Redis cache, same bucket, in turn",
        target: Target::AtLeast(30.0),
        ratio: of(|(go, ours)| go.cpu.as_secs_f64() / ours.cpu.as_secs_f64()),
        detail: format!(
            "{:.1} µs of the server's CPU a request against {:.0} µs, at {CONNECTIONS} connections; \
             {commands:.1} Redis commands against {:.0}, {calls:.1} S3 calls",
            of(|(_, ours)| ours.cpu.as_secs_f64() * 1e6),
            of(|(go, _)| go.cpu.as_secs_f64() * 1e6),
            of(|(go, _)| go.redis_commands),
        ),
        // Memory answers: fewer than one request in a thousand reaches Redis or S3.
        holds: calls < 0.001 && commands < 0.001,
    });
}

/// Returns the figures of the Go registry and of the example. The two never run at the same time.
async fn rounds() -> Vec<(Cell, Cell)> {
    let stage = Stage::set(10, 4 << 10, Duration::ZERO).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let go = head(&stage, stage.go().await).await;
        let ours = head(&stage, stage.ours().await).await;
        rounds.push((go, ours));
    }
    rounds
}

async fn head(stage: &Stage, side: Side) -> Cell {
    let watch = Watch::over(stage, &side).await;
    watch
        .measure(&stage.layers("HEAD"), CONNECTIONS, TIME)
        .await
}
