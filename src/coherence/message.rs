//! Defines the messages that nodes send each other. The format is frozen, because nodes of
//! different versions exchange messages.
//!
//! A message is a version, a kind, and numbers of eight bytes each, lowest byte first. A node that
//! does not understand a message drops everything from its memory. So a later version can define
//! more messages.

/// The only version of the format.
const VERSION: u8 = 1;

/// A message of one node to all nodes, to one node, or to itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// Tells the receiver to drop these keys from memory. An id other than 0 asks for an
    /// acknowledgement.
    Invalidate { from: u64, id: u64, names: Vec<u64> },
    /// Tells the receiver to drop all keys from memory. An id other than 0 asks for an
    /// acknowledgement.
    Flush { from: u64, id: u64 },
    /// Tells the receiver that `from` has done what the receiver's message `id` asked for.
    Acknowledge { from: u64, id: u64 },
    /// Proves to its sender that the channel works. A node sends it to itself, and only the sender
    /// interprets `sent`.
    Heartbeat { session: u64, sent: u64 },
}

/// The most keys in a message.
pub(crate) const MOST_NAMES: usize = 1000;

/// The length of the longest message, in bytes. The node does not parse a longer one.
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

    /// Parses a message. Returns `None` if the message cannot be understood.
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
    fn a_message_of_a_later_version_is_not_understood() {
        let mut later = Message::Flush { from: 1, id: 2 }.write();
        later[0] = 2;
        assert_eq!(Message::read(&later), None);
        let longer = [Message::Flush { from: 1, id: 2 }.write(), vec![0; 8]].concat();
        assert_eq!(Message::read(&longer), None);
    }

    #[test]
    fn a_message_that_is_too_long_is_not_understood() {
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
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            if let Some(message) = Message::read(&bytes) {
                prop_assert_eq!(message.write(), bytes);
            }
        }
    }
}
