//! Replies, and how Redis writes them in each version of its protocol.

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resp {
    Two,
    Three,
}

/// A reply, or a push.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// The command has written its replies itself.
    Written,
    Status(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Null,
    NullArray,
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Set(Vec<Self>),
    Double(f64),
    /// Members with scores: one flat array in version 2, pairs in version 3.
    Scored(Vec<(Vec<u8>, f64)>),
    /// A text that people read.
    Verbatim(String),
    Push(Vec<Self>),
}

/// An error reply, without the leading dash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) Vec<u8>);

/// The result of a command.
pub(crate) type Outcome = Result<Reply, Refusal>;

impl Refusal {
    pub(crate) fn new(text: impl Into<Vec<u8>>) -> Self {
        Self(text.into())
    }

    pub(crate) fn syntax() -> Self {
        Self::new("ERR syntax error")
    }

    pub(crate) fn not_an_integer() -> Self {
        Self::new("ERR value is not an integer or out of range")
    }

    pub(crate) fn wrong_type() -> Self {
        Self::new("WRONGTYPE Operation against a key holding the wrong kind of value")
    }
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::Status(b"OK".to_vec())
    }

    pub(crate) fn bulk(text: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(text.into())
    }

    pub(crate) fn maybe(text: Option<impl Into<Vec<u8>>>) -> Self {
        text.map_or(Self::Null, Self::bulk)
    }

    pub(crate) fn bulks(texts: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self::Array(texts.into_iter().map(Self::bulk).collect())
    }

    pub(crate) fn count(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(crate) fn write(&self, resp: Resp, to: &mut Vec<u8>) {
        let is_new = resp == Resp::Three;
        match self {
            Self::Written => {}
            Self::Status(text) => line(to, b'+', text),
            Self::Error(text) => line(to, b'-', text),
            Self::Int(number) => line(to, b':', number.to_string().as_bytes()),
            Self::Bulk(text) => bulk(to, b'$', text),
            Self::Null | Self::NullArray if is_new => line(to, b'_', b""),
            Self::Null => line(to, b'$', b"-1"),
            Self::NullArray => line(to, b'*', b"-1"),
            Self::Array(items) => many(to, b'*', items, resp),
            Self::Set(items) => many(to, if is_new { b'~' } else { b'*' }, items, resp),
            Self::Push(items) => many(to, if is_new { b'>' } else { b'*' }, items, resp),
            Self::Map(pairs) => {
                let (kind, length) = match is_new {
                    true => (b'%', pairs.len()),
                    false => (b'*', 2 * pairs.len()),
                };
                line(to, kind, length.to_string().as_bytes());
                for (field, value) in pairs {
                    field.write(resp, to);
                    value.write(resp, to);
                }
            }
            Self::Double(number) => {
                let text = double(*number);
                match is_new {
                    true => line(to, b',', text.as_bytes()),
                    false => bulk(to, b'$', text.as_bytes()),
                }
            }
            Self::Scored(members) => {
                let length = if is_new { 1 } else { 2 } * members.len();
                line(to, b'*', length.to_string().as_bytes());
                for (member, score) in members {
                    if is_new {
                        line(to, b'*', b"2");
                    }
                    bulk(to, b'$', member);
                    Self::Double(*score).write(resp, to);
                }
            }
            Self::Verbatim(text) if is_new => bulk(to, b'=', format!("txt:{text}").as_bytes()),
            Self::Verbatim(text) => bulk(to, b'$', text.as_bytes()),
        }
    }
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        outcome.unwrap_or_else(|Refusal(text)| Self::Error(text))
    }
}

fn line(to: &mut Vec<u8>, kind: u8, text: &[u8]) {
    to.push(kind);
    to.extend_from_slice(text);
    to.extend_from_slice(b"\r\n");
}

fn bulk(to: &mut Vec<u8>, kind: u8, text: &[u8]) {
    line(to, kind, text.len().to_string().as_bytes());
    to.extend_from_slice(text);
    to.extend_from_slice(b"\r\n");
}

fn many(to: &mut Vec<u8>, kind: u8, items: &[Reply], resp: Resp) {
    line(to, kind, items.len().to_string().as_bytes());
    for item in items {
        item.write(resp, to);
    }
}

/// Returns a number as C's `%.17g` prints it.
pub(crate) fn double(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number == number.trunc() && number.abs() < 1e17 {
        return format!("{number:.0}");
    }
    let text = format!("{number:.16e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let power: i32 = exponent.parse().unwrap_or(0);
    let short = |text: &str| {
        let has_point = text.contains('.');
        let short = text.trim_end_matches('0').trim_end_matches('.');
        if has_point { short } else { text }.to_owned()
    };
    if (-4..17).contains(&power) {
        let decimals = usize::try_from(16 - power).unwrap_or(0);
        return short(&format!("{number:.decimals$}"));
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", short(digits), power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_in_c() {
        for (number, text) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (0.5, "0.5"),
            (0.1, "0.10000000000000001"),
            (1_700_000_000_123.0, "1700000000123"),
            (1e17, "1e+17"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(double(number), text);
        }
    }
}
