//! Requests, as clients write them.

use crate::reply::Refusal;

/// The longest line that is no bulk string.
const LONGEST_LINE: usize = 64 * 1024;
const MOST_ARGUMENTS: i64 = i32::MAX as i64;
const LONGEST_ARGUMENT: i64 = 512 * 1024 * 1024;

/// Takes the first request from the input. Returns `None` if the input ends before the request
/// does. A request may be empty.
///
/// # Errors
/// Returns an error for input that is no request. Redis then closes the connection.
pub(crate) fn take(input: &mut Vec<u8>) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
    let mut reader = Reader { input, at: 0 };
    let request = match reader.input.first() {
        None => return Ok(None),
        Some(b'*') => reader.array()?,
        Some(_) => reader.inline()?,
    };
    let end = reader.at;
    if request.is_some() {
        input.drain(..end);
    }
    Ok(request)
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a line, without its end.
    fn line(&mut self, too_long: &str) -> Result<Option<&'a [u8]>, Refusal> {
        let rest = &self.input[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return match rest.len() > LONGEST_LINE {
                true => Err(protocol(too_long)),
                false => Ok(None),
            };
        };
        self.at += end + 1;
        let line = &rest[..end];
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    fn array(&mut self) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
        let Some(line) = self.line("too big mbulk count string")? else {
            return Ok(None);
        };
        let count = integer(&line[1..]).filter(|count| *count <= MOST_ARGUMENTS);
        let count = count.ok_or_else(|| protocol("invalid multibulk length"))?;
        let mut arguments = Vec::new();
        for _ in 0..count {
            let Some(line) = self.line("too big bulk count string")? else {
                return Ok(None);
            };
            let Some((b'$', length)) = line.split_first() else {
                let got = line.first().map_or('\r', |byte| char::from(*byte));
                return Err(protocol(&format!("expected '$', got '{got}'")));
            };
            let length = integer(length).filter(|length| (0..=LONGEST_ARGUMENT).contains(length));
            let length = length.and_then(|length| usize::try_from(length).ok());
            let length = length.ok_or_else(|| protocol("invalid bulk length"))?;
            let rest = &self.input[self.at..];
            if rest.len() < length + 2 {
                return Ok(None);
            }
            arguments.push(rest[..length].to_vec());
            self.at += length + 2;
        }
        Ok(Some(arguments))
    }

    /// Reads a request that a person typed. Quotes have no meaning.
    fn inline(&mut self) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
        let line = self.line("too big inline request")?;
        let words = line.map(|line| {
            let words = line.split(|byte| byte.is_ascii_whitespace());
            let words = words.filter(|word| !word.is_empty());
            words.map(<[u8]>::to_vec).collect()
        });
        Ok(words)
    }
}

fn protocol(what: &str) -> Refusal {
    Refusal::new(format!("ERR Protocol error: {what}"))
}

/// Reads an integer as strictly as Redis does: without spaces, a plus sign or leading zeros.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// Reads a number as Redis reads scores.
pub(crate) fn float(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_one_by_one_and_only_when_they_are_whole() {
        let whole = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING  x\r\n*0\r\n".to_vec();
        let expected: [&[&[u8]]; 3] = [&[b"GET", b"k"], &[b"PING", b"x"], &[]];
        let mut input = Vec::new();
        let mut taken = Vec::new();
        for byte in whole {
            input.push(byte);
            taken.extend(take(&mut input).unwrap());
        }
        assert_eq!(taken, expected);
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (input, text) in [
            ("*x\r\n", "ERR Protocol error: invalid multibulk length"),
            ("*1\r\n:1\r\n", "ERR Protocol error: expected '$', got ':'"),
            ("*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"),
        ] {
            let refusal = take(&mut input.as_bytes().to_vec()).unwrap_err();
            assert_eq!(String::from_utf8(refusal.0).unwrap(), text);
        }
    }
}
