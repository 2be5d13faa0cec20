//! Lists referrers: the manifests that name another manifest as their subject.

use crate::app::App;
use crate::error::Error;
use crate::headers::{FILTERS_APPLIED, next_page};
use crate::lookup::look_up;
use crate::manifests::{self, Manifest, OCI_INDEX, subjects};
use crate::parameters::Parameters;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{AppendHeaders, IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use layercache::{Digest, Link, RepositoryName};
use serde_json::{Value, json};
use url::form_urlencoded;

/// How many manifests a page describes. The number is small because each manifest is read.
const PAGE: usize = 256;

/// How many manifests are read at the same time.
const PARALLEL: usize = 16;

/// Answers `GET /v2/<name>/referrers/<digest>`. An unknown subject has no referrers.
pub(crate) async fn list(
    app: &App,
    name: &RepositoryName,
    subject: &Digest,
    parameters: &Parameters,
) -> Result<Response, Error> {
    let mut digests = subjects::referrers(app, name, subject).await?;
    if let Some(last) = &parameters.last {
        let last: Digest = last.parse()?;
        digests.retain(|digest| *digest > last);
    }
    let more = digests.len() > PAGE;
    digests.truncate(PAGE);
    let next = digests.last().copied().filter(|_| more);

    let wanted = parameters.artifact_type.as_deref();
    let described = futures::stream::iter(digests)
        .map(|digest| describe(app, name, digest))
        .buffered(PARALLEL);
    let described: Vec<Option<Value>> = described.try_collect().await?;
    let mut descriptors: Vec<Value> = described.into_iter().flatten().collect();
    if let Some(wanted) = wanted {
        descriptors.retain(|descriptor| descriptor["artifactType"] == wanted);
    }

    let mut headers = vec![(CONTENT_TYPE, OCI_INDEX.to_owned())];
    if wanted.is_some() {
        headers.push((FILTERS_APPLIED, "artifactType".to_owned()));
    }
    if let Some(last) = next {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.to_string());
        query.extend_pairs(wanted.map(|wanted| ("artifactType", wanted)));
        let path = format!("/v2/{name}/referrers/{subject}");
        headers.push(next_page(&path, &query.finish()));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors });
    Ok((AppendHeaders(headers), Body::from(index.to_string())).into_response())
}

/// Returns a referrer's descriptor. Returns `None` if the manifest is gone or cannot be parsed.
async fn describe(
    app: &App,
    name: &RepositoryName,
    digest: Digest,
) -> Result<Option<Value>, Error> {
    let link = Link::manifest(name.clone(), digest);
    let Some(meta) = look_up(app, link).await?.value else {
        return Ok(None);
    };
    let content = match manifests::content(app, &digest, meta.length()).await {
        Err(Error::ManifestUnknown) => return Ok(None),
        content => content?,
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&content) else {
        return Ok(None);
    };
    let mut descriptor = json!({
        "mediaType": manifest.media_type(),
        "digest": digest.to_string(),
        "size": content.len(),
    });
    if let Some(artifact_type) = manifest.artifact_type() {
        descriptor["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = manifest.annotations {
        descriptor["annotations"] = json!(annotations);
    }
    Ok(Some(descriptor))
}
