//! `layercache watch`: shows what running nodes do, from their metrics.

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

/// Show what running nodes do: hits by tier and fact, loads, refused fills, trust, breakers
///
/// The command reads the Prometheus metrics of the nodes. On a terminal it keeps a table up to date.
/// Elsewhere it prints a head line, and then one line in each interval for all nodes together. With
/// --json it prints one document in each line. `-` stands for a figure that a node does not report.
/// Ctrl-C ends the command. With --once it exits with 1 if the metrics of a node could not be read.
#[derive(Args)]
pub(crate) struct Options {
    /// The addresses of the nodes' metrics: http://host:port/metrics; http:// and /metrics may be
    /// left out
    #[arg(required = true, value_name = "URL")]
    nodes: Vec<String>,

    /// How often to read the metrics: 500ms, 2s
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = crate::units::parse_time)]
    interval: Duration,

    /// Print the counts of each node since its start once, and end
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
        .map_err(|error| CommandError::new("cannot start the HTTP client").because(error))?;
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
        let sampled = async {
            ticks.tick().await;
            let samples: Vec<Sample> =
                join_all(nodes.iter_mut().map(|node| node.sample(&client))).await;
            samples
        };
        // The command runs until a signal stops it, so a signal is its normal end.
        let Some(samples) = stop.or(sampled).await else {
            return Ok(Verdict::Fine);
        };
        let now = Instant::now();
        let seconds = last.replace(now).map(|last| (now - last).as_secs_f64());
        let view = show::View::new(&samples, seconds);
        match (out.is_json(), options.once, out.is_terminal()) {
            (true, ..) => out.json(&view)?,
            (_, true, _) => out.table(&view.table(out))?,
            (_, _, true) => out.screen(&view.screen(out)?)?,
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
