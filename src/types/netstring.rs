//! Netstrings: several texts of any content in one text, each after its length.

/// Appends `part` to `text` as a netstring.
pub(crate) fn push(text: &mut String, part: &str) {
    text.push_str(&part.len().to_string());
    text.push(':');
    text.push_str(part);
}

/// Removes the first part from `text` and returns it. Returns `None` if there is no part, or if the
/// part is incomplete.
pub(crate) fn pop<'a>(text: &mut &'a str) -> Option<&'a str> {
    let mut length = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => length = length.checked_mul(10)?.checked_add((byte - b'0').into())?,
            b':' if at > 0 => {
                let (part, rest) = text.get(at + 1..)?.split_at_checked(length)?;
                *text = rest;
                return Some(part);
            }
            _ => return None,
        }
    }
    None
}

/// Returns whether `text` consists of pairs of parts, and no part could end the line of an HTTP
/// header.
pub(crate) fn is_pairs(mut text: &str) -> bool {
    let mut count = 0;
    while !text.is_empty() {
        match pop(&mut text) {
            Some(part) if is_line(part) => count += 1,
            _ => return false,
        }
    }
    count % 2 == 0
}

/// Returns whether `text` has no control characters. A value that came in an HTTP header has none.
pub(crate) fn is_line(text: &str) -> bool {
    !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_cut_off_or_signed_is_none() {
        for text in [
            "",
            "3",
            "3:",
            "3:ab",
            ":ab",
            "+2:ab",
            "-2:ab",
            " 2:ab",
            "2 :ab",
            "1:é",
            "18446744073709551616:a",
        ] {
            assert_eq!(pop(&mut &*text), None, "{text:?}");
        }
    }

    #[test]
    fn pairs_are_whole_and_hold_no_line_ends() {
        for (text, is_whole) in [
            ("", true),
            ("1:a1:b", true),
            ("1:a0:", true),
            ("1:a", false),
            ("1:a1:b1:c", false),
            ("1:a1:bx", false),
            ("1:a3:b\r\n", false),
            ("1:a1:\0", false),
        ] {
            assert_eq!(is_pairs(text), is_whole, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_popped(parts: Vec<String>) {
            let mut text = String::new();
            parts.iter().for_each(|part| push(&mut text, part));
            let mut rest = &*text;
            for part in &parts {
                prop_assert_eq!(pop(&mut rest), Some(&**part));
            }
            prop_assert_eq!(rest, "");
        }

        #[test]
        fn no_text_panics(text: String, digits in "[0-9:a]{0,20}") {
            is_pairs(&text);
            is_pairs(&digits);
        }
    }
}
