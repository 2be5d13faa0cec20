//! The load generator: each connection asks again as soon as it has its answer (a closed loop).

use super::client::{Ask, Client};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    pub requests: u64,
    pub took: Duration,
    latencies: Histogram<u64>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// The latency that this part of all requests had at most.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

/// Asks the server at `address` over so many connections for about this long. Each goes through the
/// questions in turn.
///
/// # Panics
/// If any answer is not the one that is wanted: an error is no fast request.
pub async fn run(address: &str, asks: &[Ask], connections: usize, time: Duration) -> Outcome {
    let asks: Arc<[Ask]> = asks.into();
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = Client::connect(address).await;
        clients.push(client.unwrap_or_else(|error| panic!("{address}: {error}")));
    }
    let begin = Instant::now();
    let tasks = clients.into_iter().enumerate().map(|(place, client)| {
        let asks = Arc::clone(&asks);
        tokio::spawn(turns(client, asks, place, begin + time))
    });
    let tasks: Vec<_> = tasks.collect();
    let mut latencies = histogram();
    for task in tasks {
        let of_one = task.await.expect("a connection's task");
        latencies.add(of_one).expect("the same bounds");
    }
    Outcome {
        requests: latencies.len(),
        took: begin.elapsed(),
        latencies,
    }
}

async fn turns(mut client: Client, asks: Arc<[Ask]>, place: usize, end: Instant) -> Histogram<u64> {
    let mut latencies = histogram();
    // Not all begin with the same question.
    for ask in asks.iter().cycle().skip(place % asks.len()) {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        let answered = client.ask(ask).await;
        answered.unwrap_or_else(|error| panic!("a wrong answer: {error}"));
        latencies.saturating_record(begin.elapsed().as_nanos() as u64);
    }
    latencies
}

/// Nanoseconds up to a minute, exact to a hundredth.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds that make sense")
}
