//! The messages that nodes send each other. Frozen: nodes of all versions hear each other.
//!
//! A message is a version, a kind, and numbers of eight bytes each, the lowest byte first. Whoever
//! does not understand one has to forget everything, so that a later version can say more.

/// The only version.
const VERSION: u8 = 1;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// Forget these keys, and say so unless the id is 0.
    Invalidate { from: u64, id: u64, names: Vec<u64> },
    /// Forget everything, and say so unless the id is 0.
    Flush { from: u64, id: u64 },
    /// What a message asked for has been done.
    Acknowledge { from: u64, id: u64 },
    /// A node to itself: the channel works. When it was sent is the sender's own business.
    Heartbeat { session: u64, sent: u64 },
}

/// The most keys of a message.
pub(crate) const MOST_NAMES: usize = 1000;

/// How long a message is at most, in bytes. Of a longer one nothing is read.
const LONGEST: usize = 2 + 8 * (2 + MOST_NAMES);

impl Message {
    pub(crate) fn write(&self) -> Vec<u8> {
        let (kind, numbers, names): (u8, [u64; 2], &[u64]) = match self {
            Self::Invalidate { from, id, names } => (b'I', [*from, *id], names),
            Self::Flush { from, id } => (b'F', [*from, *id], &[]),
            Self::Acknowledge { from, id } => (b'A', [*from, *id], &[]),
            Self::Heartbeat { session, sent } => (b'H', [*session, *sent], &[]),
        };
        let mut bytes = vec![VERSION, kind];
        for number in numbers.iter().chain(names) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// `None` if it cannot be understood.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST {
            return None;
        }
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (numbers, odd) = rest.as_chunks::<8>();
        let numbers: Vec<_> = numbers
            .iter()
            .map(|number| u64::from_le_bytes(*number))
            .collect();
        let (&first, rest) = numbers.split_first()?;
        let (&second, names) = rest.split_first()?;
        if !odd.is_empty() {
            return None;
        }
        match (head, names) {
            ([VERSION, b'I'], names) => Some(Self::Invalidate {
                from: first,
                id: second,
                names: names.to_vec(),
            }),
            ([VERSION, b'F'], []) => Some(Self::Flush {
                from: first,
                id: second,
            }),
            ([VERSION, b'A'], []) => Some(Self::Acknowledge {
                from: first,
                id: second,
            }),
            ([VERSION, b'H'], []) => Some(Self::Heartbeat {
                session: first,
                sent: second,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_is_frozen() {
        let (from, id) = (0x0102_0304_0506_0708, 9);
        let names = vec![1, u64::MAX];
        let numbers = "0807060504030201\
                       0900000000000000";
        for (message, expected) in [
            (
                Message::Invalidate { from, id, names },
                format!("0149{numbers}0100000000000000ffffffffffffffff"),
            ),
            (Message::Flush { from, id }, format!("0146{numbers}")),
            (Message::Acknowledge { from, id }, format!("0141{numbers}")),
            (
                Message::Heartbeat {
                    session: from,
                    sent: id,
                },
                format!("0148{numbers}"),
            ),
        ] {
            let bytes = message.write();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
            assert_eq!(Message::read(&bytes), Some(message));
        }
    }

    #[test]
    fn what_a_later_version_says_is_not_understood() {
        let mut later = Message::Flush { from: 1, id: 2 }.write();
        later[0] = 2;
        assert_eq!(Message::read(&later), None);
        let longer = [Message::Flush { from: 1, id: 2 }.write(), vec![0; 8]].concat();
        assert_eq!(Message::read(&longer), None);
    }

    #[test]
    fn what_is_longer_than_any_message_is_not_understood() {
        let message = |count| Message::Invalidate {
            from: 1,
            id: 2,
            names: vec![3; count],
        };
        let longest = message(MOST_NAMES).write();
        assert_eq!(longest.len(), LONGEST);
        assert_eq!(Message::read(&longest), Some(message(MOST_NAMES)));
        assert_eq!(Message::read(&message(MOST_NAMES + 1).write()), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(message) = Message::read(&bytes) {
                prop_assert_eq!(message.write(), bytes);
            }
        }
    }
}
