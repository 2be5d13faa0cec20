//! Why a command stops before its end, and how its error is described.

use layercache::BoxError;
use std::error::Error;
use std::io;

/// The reason why a command stopped before its end.
#[derive(Debug)]
pub(crate) enum Stopped {
    CommandError(CommandError),
    /// A signal stopped the command. The text says how far the command had come.
    Interrupted(String),
    /// The reader has closed its end of the pipe.
    OutputClosed,
}

/// An error: what failed, why, and what the user can do about it.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// What the command could not do, and where.
    what: String,
    why: Option<BoxError>,
    help: Option<String>,
}

impl CommandError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: None,
            help: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Into<BoxError>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds advice for the user.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Returns the causes, from the outermost to the innermost. A cause whose text is a part of an
    /// earlier one is left out, because many errors repeat the text of their source.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.why.as_deref().map(|why| why as &dyn Error);
        while let Some(why) = next {
            let text = why.to_string();
            let is_in = |earlier: &str| earlier.contains(&text);
            if !causes.iter().any(|cause| is_in(cause)) && !is_in(&self.what) {
                causes.push(text);
            }
            next = why.source();
        }
        causes
    }
}

impl From<CommandError> for Stopped {
    fn from(error: CommandError) -> Self {
        Self::CommandError(error)
    }
}

/// Converts an error of writing the output. Every other operation makes its own [`CommandError`].
impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::CommandError(CommandError::new("cannot write the output").because(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_cause_is_not_repeated() {
        let inner = io::Error::other("no such bucket");
        let error = CommandError::new("cannot list s3://a").because(Outer(inner));
        assert_eq!(error.causes(), ["outer: no such bucket"]);
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(closed.into(), Stopped::OutputClosed));
    }
}
