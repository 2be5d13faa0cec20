//! [`Cut`]: which part of a run does the simulation leave out?

use super::faults::Planned;
use super::request::Request;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The part of a run that the simulation leaves out. It draws everything else as in the whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The last millisecond in which clients send requests.
    pub(crate) until: Option<u64>,
    /// The faults that do not happen, by their numbers in the run's plan.
    pub(crate) faults: BTreeSet<usize>,
    /// The only blob that requests may be about.
    pub(crate) blob: Option<u32>,
    /// The requests that are not sent, by their numbers.
    pub(crate) requests: Vec<Range<usize>>,
}

impl Cut {
    /// Returns the faults that happen.
    pub(crate) fn of_faults(&self, planned: Vec<Planned>) -> Vec<Planned> {
        let numbered = planned.into_iter().enumerate();
        let kept = numbered.filter(|(number, _)| !self.faults.contains(number));
        kept.map(|(_, planned)| planned).collect()
    }

    /// Returns whether a request is sent.
    pub(crate) fn keeps(&self, number: usize, request: Request) -> bool {
        let is_about = |only| request.blob().is_none_or(|blob| blob == only);
        self.blob.is_none_or(is_about) && !self.requests.iter().any(|range| range.contains(&number))
    }
}

/// Writes what `LAYERCACHE_SIM_CUT` says of the cut.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(until) = self.until {
            parts.push(format!("until={until}"));
        }
        if let Some(blob) = self.blob {
            parts.push(format!("blob={blob}"));
        }
        let faults: Vec<_> = self.faults.iter().map(usize::to_string).collect();
        if !faults.is_empty() {
            parts.push(format!("faults={}", faults.join(",")));
        }
        let ranges = self.requests.iter();
        let ranges: Vec<_> = ranges
            .map(|it| format!("{}-{}", it.start, it.end))
            .collect();
        if !ranges.is_empty() {
            parts.push(format!("requests={}", ranges.join(",")));
        }
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| format!("not a part of a cut: {part}");
        let mut cut = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong(part))?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| wrong(part));
            match name {
                "until" => cut.until = Some(value.parse().map_err(|_| wrong(part))?),
                "blob" => cut.blob = Some(value.parse().map_err(|_| wrong(part))?),
                "faults" => cut.faults = value.split(',').map(number).collect::<Result<_, _>>()?,
                "requests" => {
                    for range in value.split(',') {
                        let (start, end) = range.split_once('-').ok_or_else(|| wrong(part))?;
                        cut.requests.push(number(start)?..number(end)?);
                    }
                }
                _ => return Err(wrong(part)),
            }
        }
        Ok(cut)
    }
}

#[test]
fn a_cut_is_read_as_it_is_written() {
    for text in [
        "",
        "until=1200",
        "until=7;blob=3;faults=0,4;requests=0-10,12-90",
    ] {
        let cut: Cut = text.parse().unwrap();
        assert_eq!(cut.to_string(), text);
    }
    assert!("until".parse::<Cut>().is_err());
    assert!("faults=x".parse::<Cut>().is_err());
}
