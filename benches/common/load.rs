//! The load generator. Each connection sends the next request as soon as it has its answer (a
//! closed loop).

use super::client::{Ask, Client};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The result of a run.
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

    /// Returns the latency that this part of all requests did not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }
}

/// Sends requests to the server at `address` over this many connections for about this time. Each
/// connection repeats the list of requests.
///
/// # Panics
/// If an answer is not the expected one, because an error is no fast request.
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
    // The connections begin with different requests.
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

/// Returns a histogram of nanoseconds up to a minute, with a precision of two digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("bounds that make sense")
}
