//! How the figures of the nodes are shown: as a table, in lines, or as JSON.

use super::figures::{Counts, Figures};
use super::node::Sample;
use crate::out::Out;
use crate::style::{BAD, DOUBTFUL, FAINT, GOOD, PLAIN, STRONG, paint};
use crate::table::Table;
use anstyle::Style;
use serde::Serialize;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// The head line of the output for pipes.
pub(super) const HEAD: &str = "time\tnodes\taway\tasked/s\tmemory member\tmemory meta\tredis member\tredis meta\t\
     loads/s\tfenced/s\tinvalidations/s\tlimits/s\ttrust\tbreaker";

/// The figures of all nodes at one moment. As JSON it is one line.
#[derive(Serialize)]
pub(super) struct View {
    /// Seconds since 1970.
    time: u64,
    /// The number of seconds that the figures cover. `null` if they cover the whole time since each
    /// node started.
    seconds: Option<f64>,
    nodes: Vec<Row>,
    together: Figures,
}

#[derive(Serialize)]
struct Row {
    node: String,
    /// Why the node's metrics could not be read.
    away: Option<String>,
    figures: Option<Figures>,
}

impl View {
    pub(super) fn new(samples: &[Sample], seconds: Option<f64>) -> Self {
        let mut all = Vec::with_capacity(samples.len());
        let mut nodes = Vec::with_capacity(samples.len());
        for sample in samples {
            let (away, figures) = match &sample.now {
                Ok(now) => {
                    // The first answer of a node has no earlier one to compare with, so the node
                    // has no figures yet.
                    let counts = match (seconds, &sample.before) {
                        (Some(_), Some(before)) => Some(now.since(before)),
                        (Some(_), None) => None,
                        (None, _) => Some(now.clone()),
                    };
                    let figures = counts.as_ref().map(|counts| counts.figures(seconds));
                    all.extend(counts);
                    (None, figures)
                }
                Err(why) => (Some(why.clone()), None),
            };
            nodes.push(Row {
                node: sample.name.clone(),
                away,
                figures,
            });
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            time: time.map_or(0, |time| time.as_secs()),
            seconds,
            nodes,
            together: Counts::together(all.iter()).figures(seconds),
        }
    }

    /// Returns a table with a row for each node. It has a row for all nodes together if there are
    /// several, or if the output is no terminal.
    pub(super) fn table(&self, out: &Out) -> Table {
        let per = if self.seconds.is_some() { "/s" } else { "" };
        let counts = ["loads", "fenced", "invalid.", "limits"].map(|name| format!("{name}{per}"));
        let asked = format!("asked{per}");
        let [loads, fenced, invalidations, limits] = &counts;
        let mut table = Table::new([
            "node",
            &asked,
            "mem member",
            "mem meta",
            "redis member",
            "redis meta",
            loads,
            fenced,
            invalidations,
            limits,
            "trust",
            "breaker",
        ]);
        for line in &self.nodes {
            let name = (line.node.clone(), PLAIN);
            match (&line.away, &line.figures) {
                (Some(why), _) => {
                    table.styled_row([name, (format!("away: {why}"), BAD)]);
                }
                (None, Some(figures)) => {
                    table.styled_row(std::iter::once(name).chain(cells(figures)));
                }
                (None, None) => table.styled_row([name, ("first sample".to_owned(), DOUBTFUL)]),
            }
        }
        if self.nodes.len() > 1 || !out.is_terminal() {
            let name = ("together".to_owned(), STRONG);
            table.styled_row(std::iter::once(name).chain(cells(&self.together)));
        }
        table
    }

    /// Returns the text that fills the terminal.
    pub(super) fn screen(&self, out: &Out) -> io::Result<String> {
        let of = match self.seconds {
            Some(seconds) => format!("the last {seconds:.1} s"),
            None => "the whole time since each node started".to_owned(),
        };
        let head = format!("layercache watch: {of}. Ctrl-C ends the command.");
        let table = self.table(out).columns()?;
        Ok(format!("{}\n\n{table}", paint(FAINT, head)))
    }

    /// Returns one line for all nodes together. [`HEAD`] names its fields.
    pub(super) fn line(&self) -> String {
        let away = self.nodes.iter().filter(|line| line.away.is_some()).count();
        let start = [
            self.time.to_string(),
            self.nodes.len().to_string(),
            away.to_string(),
        ];
        let cells = cells(&self.together).into_iter().map(|(cell, _)| cell);
        start
            .into_iter()
            .chain(cells)
            .collect::<Vec<_>>()
            .join("\t")
    }
}

fn cells(figures: &Figures) -> [(String, Style); 11] {
    let ratio = |ratio: Option<f64>| match ratio {
        Some(ratio) => format!("{:.1}%", ratio * 100.0),
        None => "-".to_owned(),
    };
    let number = |number: Option<f64>| match number {
        // A fraction tells nothing in a count, or in a rate of 100 or more.
        Some(number) if number.fract() == 0.0 || number >= 100.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.1}"),
        None => "-".to_owned(),
    };
    let (trust, trust_style) = match figures.trusted {
        Some(true) => ("yes", GOOD),
        Some(false) => ("no", BAD),
        None => ("-", PLAIN),
    };
    let (breaker, breaker_style) = match figures.breaker_open {
        Some(true) => ("open", BAD),
        Some(false) => ("closed", GOOD),
        None => ("-", PLAIN),
    };
    [
        (number(figures.asked), PLAIN),
        (ratio(figures.memory_membership), PLAIN),
        (ratio(figures.memory_meta), PLAIN),
        (ratio(figures.redis_membership), PLAIN),
        (ratio(figures.redis_meta), PLAIN),
        (number(figures.loads), PLAIN),
        (number(figures.fenced), PLAIN),
        (number(figures.invalidations), PLAIN),
        (number(figures.limit_hits), PLAIN),
        (trust.to_owned(), trust_style),
        (breaker.to_owned(), breaker_style),
    ]
}
