//! Measures again and again what the nodes' processes use.

use super::judge::{is_flat, quarters};
use reqwest::Client;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The gauges, in this order, and how much more each may show in the last quarter. The load is
/// constant only on average, so the values vary by this much.
pub(crate) const GAUGES: [(&str, u64); 4] = [
    ("memory, KiB", 16 << 10),
    ("tasks", 60),
    ("threads", 8),
    ("open files", 60),
];

const PAUSE: Duration = Duration::from_millis(500);

/// A node: its process id and its address.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) process: u32,
    pub(crate) url: String,
}

pub(crate) type Sample = [u64; GAUGES.len()];

/// Measures until [`Gauges::stop`].
#[derive(Debug)]
pub(crate) struct Gauges {
    is_over: Arc<AtomicBool>,
    measuring: JoinHandle<Vec<Vec<Sample>>>,
}

impl Gauges {
    pub(crate) fn start(client: &Client, places: Vec<Place>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (client, stop) = (client.clone(), Arc::clone(&is_over));
        let measuring = tokio::spawn(async move {
            let mut samples = vec![Vec::new(); places.len()];
            while !stop.load(Ordering::SeqCst) {
                for (place, samples) in places.iter().zip(&mut samples) {
                    samples.push(measure(&client, place).await);
                }
                sleep(PAUSE).await;
            }
            samples
        });
        Self { is_over, measuring }
    }

    /// Returns the medians for each node and gauge, one for each quarter of the time.
    pub(crate) async fn stop(self) -> Vec<[[u64; 4]; GAUGES.len()]> {
        self.is_over.store(true, Ordering::SeqCst);
        let nodes = self.measuring.await.unwrap();
        let of_node = |samples: Vec<Sample>| {
            std::array::from_fn(|gauge| {
                let values: Vec<_> = samples.iter().map(|sample| sample[gauge]).collect();
                quarters(&values)
            })
        };
        nodes.into_iter().map(of_node).collect()
    }
}

/// Describes the gauges that have grown.
pub(crate) fn grown(node: usize, gauges: &[[u64; 4]; GAUGES.len()]) -> Vec<String> {
    let all = gauges.iter().zip(GAUGES);
    let grown = all.filter(|(quarters, (_, slack))| !is_flat(**quarters, *slack));
    grown
        .map(|(quarters, (name, _))| format!("{name} of node {node} have grown: {quarters:?}"))
        .collect()
}

pub(crate) async fn measure(client: &Client, place: &Place) -> Sample {
    let metrics = client.get(format!("{}/metrics", place.url)).send().await;
    let metrics = metrics.unwrap().text().await.unwrap();
    let tasks = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tokio_alive_tasks "));
    let folder = format!("/proc/{}", place.process);
    let status = fs::read_to_string(format!("{folder}/status")).expect("the process");
    let field = |name| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("a field").parse().unwrap()
    };
    let files = fs::read_dir(format!("{folder}/fd")).expect("the process");
    [
        field("VmRSS:"),
        tasks.expect("the gauge of tasks").parse().unwrap(),
        field("Threads:"),
        files.count() as u64,
    ]
}

/// Waits until all nodes use as little as they did before the load, and returns how long that took.
/// Otherwise returns the gauges that have stayed high.
pub(crate) async fn at_rest(
    client: &Client,
    places: &[Place],
    before: &[Sample],
) -> Result<Duration, String> {
    const LATEST: Duration = Duration::from_secs(60);
    /// The allowance for connections of this client, and for timers.
    const MORE: u64 = 12;
    let begin = Instant::now();
    for (place, before) in places.iter().zip(before) {
        loop {
            let now = measure(client, place).await;
            if now[1] <= before[1] + MORE && now[3] <= before[3] + MORE {
                break;
            }
            if begin.elapsed() > LATEST {
                let names = GAUGES.map(|(name, _)| name);
                return Err(format!("{names:?}: still {now:?}, once {before:?}"));
            }
            sleep(PAUSE).await;
        }
    }
    Ok(begin.elapsed())
}
