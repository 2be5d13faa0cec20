//! When do two answers count as equal?

use crate::wire::Item;

/// How much two clocks may differ, in milliseconds.
const TOLERANCE: i64 = 5_000;
/// Numbers from here on are times since 1970, in milliseconds.
const TIME: i64 = 1_500_000_000_000;

/// Says what of an answer may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exact,
    /// The items of an array have no order.
    Unordered,
    /// The numbers are lifetimes in milliseconds, or in seconds.
    Life,
    /// Nothing of the content counts, only its form.
    Form,
}

pub(crate) fn kind(words: &[Vec<u8>]) -> Kind {
    let name = words
        .first()
        .map(|name| String::from_utf8_lossy(name).to_lowercase());
    match name.as_deref() {
        Some("smembers" | "hkeys" | "hvals" | "keys") => Kind::Unordered,
        Some("hgetall") => Kind::Unordered,
        // The channels have no order.
        Some("unsubscribe" | "punsubscribe") if words.len() == 1 => Kind::Form,
        Some("cluster") if words.get(1).is_some_and(|sub| sub == b"INFO") => Kind::Form,
        Some("ttl" | "pttl" | "eval" | "evalsha") => Kind::Life,
        Some("time" | "hello" | "info" | "client" | "role") => Kind::Form,
        _ => Kind::Exact,
    }
}

/// Checks whether a simulated server has answered as the real one.
pub(crate) fn are_equal(kind: Kind, real: &Item, simulated: &Item) -> bool {
    match (real, simulated) {
        (Item::Many(a, real), Item::Many(b, simulated)) => {
            if a != b {
                return false;
            }
            // The first item of a push says what it is, and a push has an order.
            if kind == Kind::Form && *a != '>' {
                return true;
            }
            let (mut real, mut simulated) = (real.clone(), simulated.clone());
            if kind == Kind::Unordered && *a != '>' {
                match *a {
                    '%' => {
                        real = pairs(&real);
                        simulated = pairs(&simulated);
                    }
                    _ => {
                        real.sort();
                        simulated.sort();
                    }
                }
            }
            // Redis orders them by time, and one of the two clocks may have stood between them.
            if *a == '*' && have_times(&real) && have_times(&simulated) {
                real = pairs(&real);
                simulated = pairs(&simulated);
            }
            let mut both = real.iter().zip(&simulated);
            real.len() == simulated.len() && both.all(|(real, one)| are_equal(kind, real, one))
        }
        (Item::Line(real), Item::Line(simulated)) => {
            let (a, b) = (number(real), number(simulated));
            match (a, b) {
                (Some(a), Some(b)) if kind == Kind::Life && a > 1000 && b > 1000 => {
                    (a - b).abs() <= TOLERANCE
                }
                (Some(a), Some(b)) if a > TIME && b > TIME => (a - b).abs() <= TOLERANCE,
                (Some(_), Some(_)) if kind == Kind::Form => true,
                _ => real == simulated,
            }
        }
        (Item::Text(a, real), Item::Text(b, simulated)) => {
            let close = match (read(real), read(simulated)) {
                (Some(a), Some(b)) if a > TIME && b > TIME => (a - b).abs() <= TOLERANCE,
                _ => false,
            };
            a == b && (close || kind == Kind::Form || real == simulated)
        }
        _ => real == simulated,
    }
}

fn number(line: &str) -> Option<i64> {
    line.strip_prefix(':')?.parse().ok()
}

fn read(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns whether these are members of a sorted set, each with a time.
fn have_times(items: &[Item]) -> bool {
    let is_time = |item: &Item| match item {
        Item::Text(_, text) => read(text).is_some_and(|number| number > TIME),
        _ => false,
    };
    items
        .chunks(2)
        .all(|pair| matches!(pair, [_, score] if is_time(score)))
}

fn pairs(items: &[Item]) -> Vec<Item> {
    let mut pairs: Vec<_> = items.chunks(2).collect();
    pairs.sort();
    pairs.concat()
}

#[test]
fn members_with_nearly_the_same_time_have_no_order() {
    let text = |text: &str| Item::Text('$', text.as_bytes().to_vec());
    let members = |all: &[&str]| Item::Many('*', all.iter().map(|it| text(it)).collect());
    let (early, late) = ("1795903405516", "1795903405517");
    let real = members(&["30", early, "20", late]);
    assert!(are_equal(
        Kind::Life,
        &real,
        &members(&["20", late, "30", late])
    ));
    assert!(!are_equal(
        Kind::Life,
        &real,
        &members(&["20", late, "31", late])
    ));
    assert!(!are_equal(Kind::Life, &real, &members(&["20", late])));
    let numbers = members(&["a", "1", "b", "2"]);
    assert!(!are_equal(
        Kind::Life,
        &numbers,
        &members(&["b", "2", "a", "1"])
    ));
}
