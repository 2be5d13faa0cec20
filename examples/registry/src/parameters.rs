//! The parameters in the query of a request.

use serde::Deserialize;

/// All parameters that a query can have. An endpoint uses the ones that it knows, and ignores the
/// others.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parameters {
    pub(crate) digest: Option<String>,
    pub(crate) mount: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) n: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) artifact_type: Option<String>,
}
