//! What each target does with any bytes. The fuzzer calls the targets, and the tests call them with
//! the seeds.

#[cfg(not(fuzzing))]
compile_error!(
    "the doors into the crate are there with RUSTFLAGS='--cfg fuzzing', which `cargo fuzz` sets"
);

mod layout;

pub use layercache::fuzzing::{fields, message, peer_set};
pub use layout::layout;

use layercache::{Digest, RepositoryName};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("digest", digest),
    ("repository_name", repository_name),
    ("layout", layout),
    ("fields", fields),
    ("message", message),
    ("peer_set", peer_set),
];

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Checks that a digest is printed as it was read, and that an error has a text.
pub fn digest(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match text.parse::<Digest>() {
        Ok(digest) => {
            assert_eq!(digest.to_string(), text);
            assert!(text.len() == 71 || text.len() == 135);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Checks that a name is a safe part of a path and of a key.
pub fn repository_name(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match text.parse::<RepositoryName>() {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            assert!(text.len() <= RepositoryName::MAX_LEN);
            let is_safe = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte)
            };
            assert!(text.bytes().all(is_safe));
            let ends = |part: &str, end: char| part.starts_with(end) || part.ends_with(end);
            let is_part = |part: &str| {
                !part.is_empty() && !['.', '_', '-'].iter().any(|end| ends(part, *end))
            };
            assert!(text.split('/').all(is_part));
            assert!(!text.contains("..") && !text.contains("___"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
