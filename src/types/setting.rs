//! Describes the settings of a configuration, which a file or the environment can name.

use std::time::Duration;

/// A configuration that is one section of the [settings](crate::Settings).
pub(crate) trait Section: Sized + 'static {
    /// The name of the section.
    const NAME: &'static str;
    /// All settings of the section.
    const SETTINGS: &'static [Setting<Self>];
    /// The setting that has no default.
    const REQUIRED: Option<&'static str> = None;

    /// Returns the section before any of its settings is set.
    fn start() -> Self;
}

/// One setting of a section.
#[derive(Debug)]
pub(crate) struct Setting<T> {
    /// The name of the setting. Its setter is `with_` and this name.
    pub(crate) name: &'static str,
    /// What the setting accepts, for errors.
    pub(crate) accepts: &'static str,
    /// Sets the setting to what a text says. Returns `None` if the setting does not accept the text.
    pub(crate) set: fn(&mut T, &str) -> Option<()>,
}

/// How a text is read as a value.
pub(crate) struct ValueKind<V> {
    pub(crate) accepts: &'static str,
    pub(crate) parse: fn(&str) -> Option<V>,
}

/// Describes the fields of a configuration: `settings![name: KIND, …]`.
macro_rules! settings {
    ($($name:ident: $kind:expr),* $(,)?) => {
        &[$($crate::types::setting::Setting {
            name: stringify!($name),
            accepts: $kind.accepts,
            set: |section, text| {
                section.$name = ($kind.parse)(text)?.into();
                Some(())
            },
        }),*]
    };
}
pub(crate) use settings;

/// Any text. Errors repeat a value that is not accepted, so a setting with a secret must accept
/// every text.
#[cfg(feature = "redis")]
pub(crate) const TEXT: ValueKind<String> = ValueKind {
    accepts: "any text",
    parse: |text| Some(text.to_owned()),
};

pub(crate) const FLAG: ValueKind<bool> = ValueKind {
    accepts: "`true` or `false`",
    parse: |text| text.parse().ok(),
};

pub(crate) const NUMBER: ValueKind<usize> = ValueKind {
    accepts: "a whole number",
    parse: |text| text.parse().ok(),
};

pub(crate) const SHARE: ValueKind<f64> = ValueKind {
    accepts: "a number from 0 to 1",
    parse: |text| {
        text.parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
    },
};

pub(crate) const TIME: ValueKind<Duration> = ValueKind {
    accepts: "a time with its unit, such as `50ms`, `2s`, `5min` or `1day`",
    parse: |text| {
        let has_unit = text.ends_with(|last: char| last.is_alphabetic());
        let time = humantime::parse_duration(text).ok();
        time.filter(|_| has_unit)
    },
};

pub(crate) const BYTES: ValueKind<u64> = ValueKind {
    accepts: "a number of bytes, or a size such as `512KiB`, `64MiB` or `1GiB`",
    parse: |text| {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit)
    },
};

/// Returns a value that was not accepted, as an error may show it. A value that looks like an address
/// is hidden: a password may stand in it.
pub(crate) fn shown(value: &str) -> &str {
    match value.contains(['@', ':']) {
        true => "(hidden)",
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, millis) in [
            ("50ms", 50),
            ("2s", 2_000),
            ("1day", 86_400_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!((TIME.parse)(text), Some(Duration::from_millis(millis)));
        }
        for text in [
            "",
            "50",
            "0",
            "ms",
            "-1s",
            "1 parsec",
            "99999999999999999999s",
        ] {
            assert_eq!((TIME.parse)(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_may_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("9", 9),
            ("9B", 9),
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!((BYTES.parse)(text), Some(bytes));
        }
        for text in ["", "MiB", "-1", "1MB", "1.5GiB", "99999999999GiB", "1ä"] {
            assert_eq!((BYTES.parse)(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!((SHARE.parse)("0.25"), Some(0.25));
        for text in ["", "-0.1", "1.1", "NaN", "inf", "1%"] {
            assert_eq!((SHARE.parse)(text), None, "{text}");
        }
    }
}
