//! Parses byte ranges: the range of a download ([RFC 9110]), and of a chunk of an upload.
//!
//! [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests

use crate::error::Error;
use std::ops::{Range, RangeInclusive};

/// Returns the bytes that `Range: <header>` asks for, from content of `length` bytes. Returns
/// `None` if the header must be ignored: it has another unit or many ranges, or cannot be parsed.
pub(crate) fn requested(header: &str, length: u64) -> Result<Option<Range<u64>>, Error> {
    let Some((unit, spec)) = header.split_once('=') else {
        return Ok(None);
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Ok(None);
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Ok(None),
    };
    if range.start >= range.end {
        return Err(Error::RangeUnsatisfiable { length });
    }
    Ok(Some(range))
}

/// Parses an upload's `Content-Range: <first>-<last>`, with or without a unit and a total.
pub(crate) fn of_chunk(header: &str) -> Option<RangeInclusive<u64>> {
    let header = header.trim();
    let range = header
        .strip_prefix("bytes")
        .map_or(header, |rest| rest.trim_start_matches([' ', '=']));
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// Parses digits only. `u64`'s own parser would accept a sign.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let requested = |header| requested(header, 10).ok();
        assert_eq!(requested("bytes=0-4"), Some(Some(0..5)));
        assert_eq!(requested("bytes=0-99"), Some(Some(0..10)));
        assert_eq!(requested("bytes=9-"), Some(Some(9..10)));
        assert_eq!(requested("bytes=-3"), Some(Some(7..10)));
        assert_eq!(requested("bytes=-99"), Some(Some(0..10)));
        assert_eq!(requested("bytes=0-18446744073709551615"), Some(Some(0..10)));
        for unsatisfiable in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert_eq!(requested(unsatisfiable), None, "{unsatisfiable}");
        }
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=a-b",
            "items=0-1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(requested(ignored), Some(None), "{ignored}");
        }
    }

    #[test]
    fn chunk_ranges_are_parsed_in_all_spellings() {
        for header in ["0-4", "bytes 0-4/*", "bytes=0-4", " 0-4/5 "] {
            assert_eq!(of_chunk(header), Some(0..=4), "{header}");
        }
        for header in ["", "-", "4-0", "a-b", "5", "-4", "0-"] {
            assert_eq!(of_chunk(header), None, "{header}");
        }
    }
}
