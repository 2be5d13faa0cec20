//! How Prometheus's text format is parsed: the part of it that the nodes' metrics use.
//!
//! The crates that parse it depend on a calendar and on regular expressions. This parser has fewer
//! than a hundred lines.

use std::iter::Peekable;
use std::str::Chars;

/// One value, with the name and the labels of its metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

/// A line that does not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a metric")]
pub(super) struct NotAMetric {
    line: usize,
}

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<Series>, NotAMetric> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(at, line)| (at, line.trim()));
    let series_lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    series_lines
        .map(|(at, line)| series(line).ok_or(NotAMetric { line: at + 1 }))
        .collect()
}

fn series(line: &str) -> Option<Series> {
    let mut rest = line.chars().peekable();
    let name = name(&mut rest, |c| matches!(c, '_' | ':'))?;
    let mut labels = Vec::new();
    if rest.next_if_eq(&'{').is_some() {
        loop {
            skip(&mut rest);
            if rest.next_if_eq(&'}').is_some() {
                break;
            }
            labels.push(label(&mut rest)?);
            skip(&mut rest);
            if rest.next_if_eq(&',').is_none() {
                rest.next_if_eq(&'}')?;
                break;
            }
        }
    }
    let rest: String = rest.collect();
    // Only a timestamp may follow the value.
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let is_time = |word: &str| word.parse::<i64>().is_ok();
    let is_over = words.next().is_none_or(is_time) && words.next().is_none();
    is_over.then_some(Series {
        name,
        labels,
        value,
    })
}

fn label(rest: &mut Peekable<Chars<'_>>) -> Option<(String, String)> {
    let name = name(rest, |c| c == '_')?;
    skip(rest);
    rest.next_if_eq(&'=')?;
    skip(rest);
    rest.next_if_eq(&'"')?;
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => return Some((name, value)),
            '\\' => value.push(match rest.next()? {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
}

fn name(rest: &mut Peekable<Chars<'_>>, besides: fn(char) -> bool) -> Option<String> {
    let mut name = String::new();
    let is_part = |c: &char| c.is_ascii_alphanumeric() || besides(*c);
    while let Some(c) = rest.next_if(is_part) {
        name.push(c);
    }
    let first = name.chars().next()?;
    (!first.is_ascii_digit()).then_some(name)
}

fn skip(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
        let labels = labels.iter();
        Series {
            name: name.to_owned(),
            labels: labels
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            value,
        }
    }

    #[test]
    fn metrics_are_parsed() {
        let text = "# HELP a Some.\n# TYPE a counter\na 1\n\na{b=\"c\",d=\"e\\\"\\\\\\n\"} 2.5e3 1700000000\n\
                    a:b{ b = \"}\" , } +Inf\n  _x\t-0\n";
        assert_eq!(
            parse(text).unwrap(),
            [
                one("a", &[], 1.0),
                one("a", &[("b", "c"), ("d", "e\"\\\n")], 2500.0),
                one("a:b", &[("b", "}")], f64::INFINITY),
                one("_x", &[], -0.0),
            ]
        );
        assert!(parse("a NaN").unwrap()[0].value.is_nan());
        assert_eq!(parse(""), Ok(vec![]));
    }

    #[test]
    fn the_error_names_the_line() {
        for line in [
            "<html>",
            "a",
            "a x",
            "a 1 x",
            "a 1 2 3",
            "1a 1",
            "a{b=\"c\" 1",
            "a{b=c} 1",
            "a{b} 1",
            "a{b=\"\\x\"} 1",
            "a{\"b\"=\"c\"} 1",
            "a{,} 1",
            "{} 1",
            "é 1",
        ] {
            let text = format!("ok 1\n{line}\n");
            assert_eq!(parse(&text), Err(NotAMetric { line: 2 }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}", near in "[a-c{}=\",\\\\ 0-9.\n#]{0,200}") {
            let _ = (parse(&text), parse(&near));
        }

        #[test]
        fn a_written_label_is_parsed(value in "\\PC*", number: i32) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let read = parse(&format!("a{{b=\"{escaped}\"}} {number}"));
            prop_assert_eq!(read, Ok(vec![one("a", &[("b", &value)], f64::from(number))]));
        }
    }
}
