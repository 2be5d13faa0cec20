//! Measures layercache beside the Go registry, over HTTP: the same image in the same bucket, the
//! same Redis, one after the other.
//!
//! `cargo bench --bench versus` measures everything, and writes `benches/versus/` and the guide.
//! `cargo bench --bench versus -- NAME…` (`head`, `blob`, `manifest`) measures only these requests,
//! and writes nothing.
#![allow(
    clippy::future_not_send,
    reason = "a measurement's futures stay on its thread"
)]

mod plot;
mod report;

#[path = "../common/mod.rs"]
mod common;
use test_support as support;

use common::cell::{Cell, Watch};
use common::client::Ask;
use common::stage::{Side, Stage};
use std::env;
use std::time::Duration;

/// The numbers of connections that ask at the same time.
const CONNECTIONS: [usize; 3] = [1, 16, 128];

/// How long each figure is measured.
const TIME: Duration = Duration::from_secs(4);

const LAYERS: usize = 10;

/// A small blob. With the head of its archive it has about 6 KiB.
const LAYER_BYTES: usize = 4 << 10;

/// A kind of request.
#[derive(Debug, Clone)]
struct Question {
    name: &'static str,
    title: &'static str,
    asks: Vec<Ask>,
}

/// A kind of request over a number of connections, answered by both registries.
#[derive(Debug)]
struct Pair {
    question: Question,
    connections: usize,
    ours: Cell,
    go: Cell,
}

// The bench uses one thread, so that the servers get as much as possible of a small machine.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Cargo adds `--bench`.
    let names: Vec<_> = env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let stage = Stage::set(LAYERS, LAYER_BYTES, Duration::ZERO).await;
    let mut questions = questions(&stage);
    questions.retain(|question| names.is_empty() || names.iter().any(|name| name == question.name));

    let go = measure(&stage, stage.go().await, &questions).await;
    let ours = measure(&stage, stage.ours().await, &questions).await;
    let labels = questions
        .iter()
        .flat_map(|question| CONNECTIONS.map(|connections| (question.clone(), connections)));
    let pairs = labels.zip(ours.into_iter().zip(go));
    let pairs = pairs.map(|((question, connections), (ours, go))| Pair {
        question,
        connections,
        ours,
        go,
    });
    let pairs: Vec<_> = pairs.collect();
    println!("{}", report::table(&pairs));
    if names.is_empty() {
        report::write(&pairs);
    }
}

fn questions(stage: &Stage) -> Vec<Question> {
    vec![
        Question {
            name: "head",
            title: "HEAD of a blob",
            asks: stage.layers("HEAD"),
        },
        Question {
            name: "blob",
            title: "GET of a small blob",
            asks: stage.layers("GET"),
        },
        Question {
            name: "manifest",
            title: "GET of a manifest by digest",
            asks: vec![stage.manifest()],
        },
    ]
}

/// Measures all requests to one of the registries, in the order of the table. Then the registry
/// ends.
async fn measure(stage: &Stage, side: Side, questions: &[Question]) -> Vec<Cell> {
    let watch = Watch::over(stage, &side).await;
    let mut cells = Vec::new();
    for question in questions {
        for connections in CONNECTIONS {
            let cell = watch.measure(&question.asks, connections, TIME).await;
            println!("{} at {connections}: {cell:?}", question.title);
            cells.push(cell);
        }
    }
    cells
}
