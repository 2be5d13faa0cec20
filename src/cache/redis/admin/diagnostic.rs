//! What a check of the servers reports: [`Diagnostic`] and [`Severity`].

use std::fmt;

/// One finding of a check.
///
/// ```
/// use layercache::admin::{Severity, Diagnostic};
///
/// /// Returns the fixes, the most severe first.
/// fn to_do(mut diagnostics: Vec<Diagnostic>) -> Vec<String> {
///     diagnostics.retain(|diagnostic| diagnostic.severity > Severity::Good);
///     diagnostics.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
///     diagnostics.into_iter().filter_map(|diagnostic| diagnostic.fix).collect()
/// }
/// ```
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

/// How severe a finding is.
///
/// ```
/// use layercache::admin::Severity;
///
/// assert!(Severity::Good < Severity::Advice && Severity::Advice < Severity::Wrong);
/// ```
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
