//! Can a storage be reached and read, and does it have the expected layout?

use super::diagnostic::Diagnostic;
use super::guess::guess;
use futures::TryStreamExt;
use layercache::layout::{Layout, Meaning};
use layercache::{Digest, Link};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// Maximum number of objects that are tried against the layout.
const MOST: usize = 2000;
/// Time limit of the whole check.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists and reads a few objects of a storage, and reports what is wrong: whether the storage can
/// be reached, whether it may be listed and read, and whether its objects match `layout`. If they
/// do not match, it names a layout that would fit. Writes nothing.
///
/// # Cost
/// 2 to 5 lists of at most 2,000 objects, 2 reads.
///
/// # Cancellation
/// May be dropped at any time.
pub async fn check_storage(store: &dyn ObjectStore, layout: &dyn Layout) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    match timeout(PATIENCE, examine(store, layout, &mut diagnostics)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => diagnostics.push(describe(&error)),
        Err(_) => diagnostics.push(
            Diagnostic::wrong(format!("storage: no answer within {PATIENCE:?}"))
                .fix("check its address and the firewall"),
        ),
    }
    diagnostics
}

async fn examine(
    store: &dyn ObjectStore,
    layout: &dyn Layout,
    diagnostics: &mut Vec<Diagnostic>,
) -> object_store::Result<()> {
    let mut blob = None;
    let mut link = None;
    let [of_blobs, of_links] = prefixes(layout);
    let mut some = Vec::new();
    for prefix in [of_blobs.clone(), of_links.clone()].into_iter().flatten() {
        some.extend(list(store, Some(&prefix)).await?);
    }
    if some
        .iter()
        .all(|object| layout.meaning(&object.location).is_none())
    {
        some = list(store, None).await?;
    }
    diagnostics.push(Diagnostic::good("storage: it can be reached and listed"));
    for object in &some {
        match layout.meaning(&object.location) {
            Some(Meaning::Blob(_) | Meaning::RepositoryBlob(_)) => blob = blob.or(Some(object)),
            Some(Meaning::Link(_)) => link = link.or(Some(object)),
            _ => {}
        }
    }
    if blob.is_none() && link.is_none() {
        diagnostics.push(no_match(&some, of_blobs.as_ref()));
        return Ok(());
    }
    let found = [("blobs", blob, &of_blobs), ("links", link, &of_links)];
    for (what, object, prefix) in found {
        match (object, prefix) {
            (Some(object), _) => diagnostics.push(Diagnostic::good(format!(
                "layout: the storage has {what}, such as {}",
                object.location
            ))),
            (None, Some(prefix)) => diagnostics.push(
                Diagnostic::advice(format!("layout: no {what} were found below {prefix}"))
                    .fix("check --layout and --root, unless the registry is empty"),
            ),
            (None, None) => {}
        }
    }
    if let Some(object) = blob {
        store.head(&object.location).await?;
    }
    if let Some(object) = link {
        store.get(&object.location).await?;
    }
    diagnostics.push(Diagnostic::good("storage: its blobs and links can be read"));
    Ok(())
}

/// Lists the first objects below a prefix.
async fn list(
    store: &dyn ObjectStore,
    prefix: Option<&Path>,
) -> object_store::Result<Vec<ObjectMeta>> {
    let mut objects = store.list(prefix);
    let mut some = Vec::new();
    while let Some(object) = objects.try_next().await? {
        some.push(object);
        if some.len() == MOST {
            break;
        }
    }
    Ok(some)
}

/// Returns the common prefix of all blobs' paths, and that of all links' paths, if the layout has
/// such paths.
fn prefixes(layout: &dyn Layout) -> [Option<Path>; 2] {
    let [one, other] = [[0x00; 32], [0xff; 32]].map(Digest::Sha256);
    let blobs = layout.blob_path(&one).zip(layout.blob_path(&other));
    let link = |name: &str, digest| {
        let name = name.parse().ok()?;
        layout.link_path(&Link::layer(name, digest))
    };
    let links = link("a", one).zip(link("b", other));
    [blobs, links].map(|two| two.map(|(one, other)| common(&one, &other)))
}

fn common(one: &Path, other: &Path) -> Path {
    let parts = one.parts().zip(other.parts());
    parts
        .take_while(|(one, other)| one == other)
        .map(|(one, _)| one)
        .collect()
}

/// Returns the diagnostic for a storage in which no object has a meaning in the layout.
fn no_match(some: &[ObjectMeta], expected: Option<&Path>) -> Diagnostic {
    let Some(first) = some.first() else {
        return Diagnostic::advice("layout: the storage is empty")
            .fix("if the registry is not empty, the address or its prefix is wrong");
    };
    let mut guesses = BTreeMap::new();
    for guess in some.iter().filter_map(|object| guess(&object.location)) {
        *guesses.entry(guess).or_insert(0u32) += 1;
    }
    let wrong = Diagnostic::wrong(format!(
        "layout: none of {} objects is a blob or a link; the first is {}",
        some.len(),
        first.location
    ));
    match guesses.iter().max_by_key(|(_, count)| **count) {
        Some((guess, _)) => wrong.fix(format!("this layout would fit: {guess}")),
        None => {
            let below = match expected {
                Some(path) => format!("; blobs would be below {path}"),
                None => String::new(),
            };
            wrong.fix(format!(
                "this is not a registry, or its prefix is missing in the address{below}"
            ))
        }
    }
}

/// Turns an error into a diagnostic with a fix.
fn describe(error: &object_store::Error) -> Diagnostic {
    Diagnostic::wrong(format!("storage: {error}")).fix(Kind::of(error).fix())
}

/// Why a storage cannot be used. The kind does not depend on the request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No access keys are configured, and the machine's metadata service has none either.
    NoKeys,
    /// The storage refuses these keys.
    Refused,
    /// The bucket or folder does not exist.
    Missing,
    /// The bucket is in another region.
    Elsewhere,
    /// No server answers at the address, or the server does not speak HTTP.
    Unreachable,
    Other,
}

impl Kind {
    /// Returns the kind of an error. Decides by types and by the HTTP status, never by words
    /// anywhere in the text, because the text contains the operator's names and the server's random
    /// numbers.
    fn of(error: &object_store::Error) -> Self {
        let mut chain: Vec<&(dyn StdError + 'static)> = vec![error];
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push(cause);
            source = cause.source();
        }
        // An answer of the metadata service is about the machine, not about the storage.
        if chain.iter().any(|error| asks_for_keys(*error)) {
            return Self::NoKeys;
        }
        let typed = chain.iter().find_map(|error| Self::typed(*error));
        let by_status = || chain.iter().find_map(|error| Self::by_status(*error));
        typed.or_else(by_status).unwrap_or(Self::Other)
    }

    fn typed(error: &(dyn StdError + 'static)) -> Option<Self> {
        use object_store::Error as E;
        use std::io::ErrorKind as Io;
        if let Some(error) = error.downcast_ref() {
            return match error {
                E::Unauthenticated { .. } | E::PermissionDenied { .. } => Some(Self::Refused),
                E::NotFound { .. } => Some(Self::Missing),
                _ => None,
            };
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return match error.kind() {
                Io::PermissionDenied => Some(Self::Refused),
                Io::NotFound | Io::NotADirectory => Some(Self::Missing),
                Io::ConnectionRefused
                | Io::ConnectionReset
                | Io::ConnectionAborted
                | Io::HostUnreachable
                | Io::NetworkUnreachable
                | Io::TimedOut => Some(Self::Unreachable),
                _ => None,
            };
        }
        error
            .is::<object_store::client::HttpError>()
            .then_some(Self::Unreachable)
    }

    /// Decides by the server's answer. It reads the text, because `object_store` does not export
    /// the type that holds the answer.
    fn by_status(error: &(dyn StdError + 'static)) -> Option<Self> {
        let text = error.to_string();
        if text.starts_with("Received redirect without LOCATION") {
            return Some(Self::Elsewhere);
        }
        let (status, body) = match text.strip_prefix("Server returned non-2xx status code: ") {
            Some(answer) => (answer.get(..3)?.parse().ok()?, answer),
            // The server reported a failure with a success status.
            None => (200, text.strip_prefix("Server returned error response: ")?),
        };
        let code = || body.split_once("<Code>")?.1.split_once("</Code>");
        match (status, code().map_or("", |(code, _)| code)) {
            (401 | 403, _) => Some(Self::Refused),
            (404, _) => Some(Self::Missing),
            (301 | 307, _) => Some(Self::Elsewhere),
            (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                Some(Self::Elsewhere)
            }
            (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId") => Some(Self::Refused),
            (_, "InvalidBucketName") => Some(Self::Missing),
            _ => None,
        }
    }

    const fn fix(self) -> &'static str {
        match self {
            Self::NoKeys => {
                "no access keys were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your storage"
            }
            Self::Refused => {
                "check the access keys: they must allow to list the bucket and to read from it"
            }
            Self::Missing => "check the name of the bucket or folder",
            Self::Elsewhere => "check the region (AWS_REGION)",
            Self::Unreachable => {
                "check the address (AWS_ENDPOINT; with http also AWS_ALLOW_HTTP=true) and the firewall"
            }
            Self::Other => "see the log of the storage",
        }
    }
}

/// Returns whether the failed request asked the machine's metadata service for keys.
fn asks_for_keys(error: &(dyn StdError + 'static)) -> bool {
    let text = error.to_string();
    let request = text.strip_prefix("Error performing ");
    let url = request.and_then(|request| Url::parse(request.split(' ').nth(1)?).ok());
    let host = url.as_ref().and_then(Url::host_str);
    matches!(
        host,
        Some("169.254.169.254" | "169.254.170.2" | "metadata.google.internal" | "metadata")
    )
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Severity;
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use layercache::layout::Distribution;
    use object_store::RetryConfig;
    use object_store::aws::{AmazonS3, AmazonS3Builder};
    use tokio::net::TcpListener;

    fn bucket(name: &str, endpoint: &str) -> AmazonS3 {
        let builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_access_key_id("key")
            .with_secret_access_key("secret");
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        builder.with_retry(retry).build().unwrap()
    }

    /// Returns the errors of the requests that a check makes.
    async fn failures(store: &dyn ObjectStore) -> [object_store::Error; 3] {
        let path = Path::from("docker/registry/v2/blobs/403/404/data");
        [
            list(store, Some(&path)).await.unwrap_err(),
            store.head(&path).await.unwrap_err(),
            store.get(&path).await.unwrap_err(),
        ]
    }

    #[tokio::test]
    async fn an_empty_storage_is_advice() {
        let store = object_store::memory::InMemory::new();
        let diagnostics = check_storage(&store, &Distribution::default()).await;
        let empty = diagnostics.last().expect("the storage can be reached");
        assert_eq!(empty.severity, Severity::Advice);
        assert!(empty.what.contains("the storage is empty"), "{empty}");
    }

    #[tokio::test]
    async fn the_advice_depends_on_the_kind_of_failure_and_not_on_the_request() {
        for (status, code, kind) in [
            (401, "AccessDenied", Kind::Refused),
            (403, "SignatureDoesNotMatch", Kind::Refused),
            (403, "InvalidAccessKeyId", Kind::Refused),
            (404, "NoSuchBucket", Kind::Missing),
            (301, "PermanentRedirect", Kind::Elsewhere),
            (400, "AuthorizationHeaderMalformed", Kind::Elsewhere),
            (400, "ExpiredToken", Kind::Refused),
            (400, "EntityTooSmall", Kind::Other),
            (500, "InternalError", Kind::Other),
            (503, "SlowDown", Kind::Other),
        ] {
            // The server's numbers and the operator's names look like other errors.
            let odd =
                "<HostId>dd403d404connect</HostId><Resource>/NoSuchBucket/metadata</Resource>";
            let body = format!("<Error><Code>{code}</Code>{odd}</Error>");
            let status_code = StatusCode::from_u16(status).unwrap();
            let router = Router::new().fallback(async move || (status_code, body));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            for name in ["metadata-403", "registry"] {
                let [list, head, get] = failures(&bucket(name, &endpoint)).await;
                for error in [list, get] {
                    assert_eq!(Kind::of(&error), kind, "{status} {code}: {error:?}");
                }
                // The answer to a `HEAD` has no body, so it has no error code.
                let kind = match status {
                    400 => Kind::Other,
                    _ => kind,
                };
                assert_eq!(Kind::of(&head), kind, "{status} {code}: {head:?}");
            }
            server.abort();
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_or_does_not_speak_http_is_unreachable() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = format!("http://{}", silent.local_addr().unwrap());
        drop(silent);
        let odd = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let not_http = format!("http://{}", odd.local_addr().unwrap());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = odd.accept().await {
                let _ = stream.try_write(b"220 ready\r\n");
            }
        });
        for endpoint in [gone, not_http] {
            for error in failures(&bucket("registry-403", &endpoint)).await {
                assert_eq!(Kind::of(&error), Kind::Unreachable, "{error:?}");
            }
        }
        server.abort();
    }

    #[test]
    fn keys_are_missing_if_the_metadata_service_was_asked_for_them() {
        #[derive(Debug, thiserror::Error)]
        #[error("Error performing PUT {0} in 1s - HTTP error")]
        struct Request(&'static str);
        for (url, kind) in [
            ("http://169.254.169.254/latest/api/token", Kind::NoKeys),
            ("http://metadata.google.internal/a", Kind::NoKeys),
            ("https://host/metadata/169.254.169.254", Kind::Other),
        ] {
            let error = object_store::Error::Generic {
                store: "S3",
                source: Box::new(Request(url)),
            };
            assert_eq!(Kind::of(&error), kind, "{url}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        let error = store.get(&"absent".into()).await.unwrap_err();
        assert_eq!(Kind::of(&error), Kind::Missing);
    }
}
