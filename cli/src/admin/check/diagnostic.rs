//! What a check of the servers reports: [`Diagnostic`] and [`Severity`].

use std::fmt;

/// One finding of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How severe the finding is.
    pub severity: Severity,
    /// What was found. Contains no secret.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How severe a finding is. A more severe finding is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is as it should be.
    Good,
    /// It works, but could be better.
    Advice,
    /// It does not work.
    Wrong,
}

impl Diagnostic {
    pub(crate) fn good(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Good,
            what: what.into(),
            fix: None,
        }
    }

    pub(crate) fn advice(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Advice,
            ..Self::good(what)
        }
    }

    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Wrong,
            ..Self::good(what)
        }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Severity;

    #[test]
    fn a_more_severe_finding_is_greater() {
        assert!(Severity::Good < Severity::Advice && Severity::Advice < Severity::Wrong);
    }
}
