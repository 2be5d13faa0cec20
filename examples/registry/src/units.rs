//! Parses the times, sizes and shares in flags.

use std::time::Duration;

/// The longest time, in milliseconds. No clock overflows with it.
const MAX_MILLIS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Parses `50ms`, `1s`, `15m`. A number without a unit is milliseconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        unit => return Err(format!("the unit `{unit}` is unknown; use ms, s or m")),
    };
    match number.checked_mul(millis) {
        Some(0) => Err("it must be longer than zero".to_owned()),
        Some(millis) if millis <= MAX_MILLIS => Ok(Duration::from_millis(millis)),
        _ => Err("it is too long; the maximum is one year".to_owned()),
    }
}

/// Parses `512KiB`, `20MiB`, `1GiB`. A number without a unit is bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => {
            return Err(format!(
                "the unit `{unit}` is unknown; use B, KiB, MiB or GiB"
            ));
        }
    };
    number
        .checked_mul(bytes)
        .ok_or_else(|| "it is too large".to_owned())
}

/// Parses a share: 0, 0.01, 1.
pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("it must be a number from 0 to 1".to_owned()),
    }
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = digits.parse().map_err(|_| "it must begin with a number")?;
    Ok((number, &text[digits.len()..]))
}

#[cfg(test)]
mod tests {
    use super::{MAX_MILLIS, parse_share, parse_size, parse_time};
    use std::time::Duration;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("50", 50),
            ("50ms", 50),
            ("2s", 2_000),
            ("15m", 900_000),
            ("525600m", MAX_MILLIS),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)));
        }
        for text in [
            "",
            "s",
            "0",
            "0s",
            "-1s",
            "1h",
            "1.5s",
            "525601m",
            "99999999999999999m",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_from_0_to_1() {
        for (text, share) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert_eq!(parse_share(text), Ok(share));
        }
        for text in ["", "-0.1", "1.1", "NaN", "inf", "1%"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("0", 0), ("9", 9), ("1KiB", 1024), ("20MiB", 20 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        for text in ["", "MiB", "-1", "1MB", "1.5GiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
