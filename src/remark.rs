//! [`Remark`]: what a check-up has to say.

use std::fmt;

/// What a check-up has to say of one thing.
///
/// ```
/// use layercache::admin::{Grade, Remark};
///
/// /// The fixes, of what does not work first.
/// fn to_do(mut remarks: Vec<Remark>) -> Vec<String> {
///     remarks.retain(|remark| remark.grade > Grade::Good);
///     remarks.sort_by_key(|remark| std::cmp::Reverse(remark.grade));
///     remarks.into_iter().filter_map(|remark| remark.fix).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remark {
    /// How bad it is.
    pub grade: Grade,
    /// What was found. Holds no secret.
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How bad something is.
///
/// ```
/// use layercache::admin::Grade;
///
/// assert!(Grade::Good < Grade::Advice && Grade::Advice < Grade::Wrong);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Advice,
    /// It does not work.
    Wrong,
}

impl Remark {
    pub(crate) fn good(what: impl Into<String>) -> Self {
        Self {
            grade: Grade::Good,
            what: what.into(),
            fix: None,
        }
    }

    pub(crate) fn advice(what: impl Into<String>) -> Self {
        Self {
            grade: Grade::Advice,
            ..Self::good(what)
        }
    }

    pub(crate) fn wrong(what: impl Into<String>) -> Self {
        Self {
            grade: Grade::Wrong,
            ..Self::good(what)
        }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}
