//! `layercache watch`: what running nodes do, from their metrics.

mod figures;
mod node;
mod parse;
mod show;

use crate::Verdict;
use crate::command_error::{CommandError, Stopped};
use crate::out::Out;
use crate::stop::Stop;
use clap::Args;
use futures::future::join_all;
use node::{Sample, WatchedNode};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Watch running nodes: hits by tier and fact, loads, caught races, trust, breakers
///
/// Reads the nodes' Prometheus metrics. On a terminal a table is kept up to date; elsewhere each interval is
/// one line for all nodes together, after a head. With --json one document in each line. What a node does
/// not tell is `-`. Ends on Ctrl-C. With --once it exits with 1 if a node is away.
#[derive(Args)]
pub(crate) struct Options {
    /// The nodes' metrics: http://host:port/metrics; http:// and /metrics may be left out
    #[arg(required = true, value_name = "URL")]
    nodes: Vec<String>,

    /// How often they are asked: 500ms, 2s
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = crate::units::parse_time)]
    interval: Duration,

    /// Show once what each node has counted since it began, and end
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(options: Options, out: &Out, stop: &mut Stop) -> Result<Verdict, Stopped> {
    let patience = options
        .interval
        .clamp(Duration::from_secs(1), Duration::from_secs(5));
    let client = reqwest::Client::builder()
        .timeout(patience)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| CommandError::new("cannot speak HTTP").because(error))?;
    let nodes = options
        .nodes
        .iter()
        .map(|address| WatchedNode::new(address));
    let mut nodes = nodes.collect::<Result<Vec<_>, CommandError>>()?;

    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    let mut is_first = true;
    loop {
        let looked = async {
            ticks.tick().await;
            let samples: Vec<Sample> =
                join_all(nodes.iter_mut().map(|node| node.look(&client))).await;
            samples
        };
        // It goes on until somebody asks it to stop, so that is how it ends well.
        let Some(samples) = stop.or(looked).await else {
            return Ok(Verdict::Fine);
        };
        let now = Instant::now();
        let seconds = last.replace(now).map(|last| (now - last).as_secs_f64());
        let view = show::View::new(&samples, seconds);
        match (out.is_json(), options.once, out.is_terminal()) {
            (true, ..) => out.json(&view)?,
            (_, true, _) => out.table(&view.table(out))?,
            (_, _, true) => out.text(&format!("\x1b[H\x1b[2J{}", view.screen(out)))?,
            _ => {
                if is_first {
                    out.line(show::HEAD)?;
                }
                out.line(view.line())?;
            }
        }
        is_first = false;
        if options.once {
            let is_away = samples.iter().any(|sample| sample.now.is_err());
            return Ok(if is_away {
                Verdict::Findings
            } else {
                Verdict::Fine
            });
        }
    }
}
