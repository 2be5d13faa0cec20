//! Patterns, as `SCAN`, `KEYS` and `PSUBSCRIBE` use them.

/// Checks whether a text matches a pattern with `*`, `?`, `[…]` and `\`.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    match first {
        b'*' => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        b'?' => !text.is_empty() && matches(rest, &text[1..]),
        b'[' => {
            let Some((byte, after)) = text.split_first() else {
                return false;
            };
            let (has, rest) = class(rest, *byte);
            has && matches(rest, after)
        }
        b'\\' if !rest.is_empty() => {
            text.first() == rest.first() && matches(&rest[1..], &text[1..])
        }
        byte => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

/// Checks whether a class has a byte. Returns the pattern after the class, too. A class that has no
/// end goes on to the end of the pattern.
fn class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (is_negated, mut rest) = match class.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, class),
    };
    let mut has = false;
    loop {
        match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', escaped, after @ ..] => {
                has |= *escaped == byte;
                rest = after;
            }
            [from, b'-', to, after @ ..] => {
                has |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest = after;
            }
            [one, after @ ..] => {
                has |= *one == byte;
                rest = after;
            }
        }
    }
    (has != is_negated, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "anything", true),
            ("lease::*", "lease::{a}", true),
            ("lease::*", "lea", false),
            ("[rb]*", "repository::a", true),
            ("[rb]*", "lease", false),
            ("[^rb]?", "lx", true),
            ("[a-c]d", "bd", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a?", "a", false),
        ] {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern} {text}");
        }
    }
}
