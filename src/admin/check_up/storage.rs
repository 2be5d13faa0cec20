//! Whether a storage is there, may be read, and is laid out as it is said to be.

use super::guess::guess;
use crate::layout::{Layout, Meaning};
use crate::remark::Remark;
use crate::{Digest, Link};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// How many objects are looked at in search of a meaning.
const MOST: usize = 2000;
/// How long the storage may take for any of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists and reads a little of a storage, and says what is wrong with it: whether it can be reached, whether
/// it may be listed and read, whether what it has is laid out as `layout` says, and if not, which other
/// layout would fit. Writes nothing.
///
/// ```
/// use layercache::admin::{Grade, check_storage};
/// use layercache::layout::Distribution;
/// use object_store::memory::InMemory;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let remarks = check_storage(&InMemory::new(), &Distribution::default()).await;
/// let empty = remarks.last().expect("it can be reached at least");
/// assert_eq!(empty.grade, Grade::Advice);
/// assert!(empty.what.contains("the storage is empty"));
/// # }
/// ```
///
/// # Cost
/// 2 to 5 lists of at most 2,000 objects, 2 reads.
///
/// # Cancellation
/// May be dropped at any time.
pub async fn check_storage(store: &dyn ObjectStore, layout: &dyn Layout) -> Vec<Remark> {
    let mut remarks = Vec::new();
    match timeout(PATIENCE, examine(store, layout, &mut remarks)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => remarks.push(describe(&error)),
        Err(_) => remarks.push(
            Remark::wrong(format!("storage: no answer within {PATIENCE:?}"))
                .fix("is its address right, does a firewall keep it away?"),
        ),
    }
    remarks
}

async fn examine(
    store: &dyn ObjectStore,
    layout: &dyn Layout,
    remarks: &mut Vec<Remark>,
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
    remarks.push(Remark::good("storage: it can be reached and listed"));
    for object in &some {
        match layout.meaning(&object.location) {
            Some(Meaning::Blob(_) | Meaning::RepositoryBlob(_)) => blob = blob.or(Some(object)),
            Some(Meaning::Link(_)) => link = link.or(Some(object)),
            None => {}
        }
    }
    if blob.is_none() && link.is_none() {
        remarks.push(nothing_of_it(&some, of_blobs.as_ref()));
        return Ok(());
    }
    let found = [("blobs", blob, &of_blobs), ("links", link, &of_links)];
    for (what, object, prefix) in found {
        match (object, prefix) {
            (Some(object), _) => remarks.push(Remark::good(format!(
                "layout: it has {what}, such as {}",
                object.location
            ))),
            (None, Some(prefix)) => remarks.push(
                Remark::advice(format!("layout: no {what} were found below {prefix}"))
                    .fix("is the layout right, and the registry not empty?"),
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
    remarks.push(Remark::good("storage: its blobs and links may be read"));
    Ok(())
}

/// A little of what is there.
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

/// What the paths of all blobs begin with, and those of all links, where they do.
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

/// What is there means nothing in the layout.
fn nothing_of_it(some: &[ObjectMeta], expected: Option<&Path>) -> Remark {
    let Some(first) = some.first() else {
        return Remark::advice("layout: the storage is empty")
            .fix("if the registry is not, the address or its prefix is wrong");
    };
    let mut guesses = BTreeMap::new();
    for guess in some.iter().filter_map(|object| guess(&object.location)) {
        *guesses.entry(guess).or_insert(0u32) += 1;
    }
    let wrong = Remark::wrong(format!(
        "layout: of {} objects none is a blob or a link, such as {}",
        some.len(),
        first.location
    ));
    match guesses.iter().max_by_key(|(_, count)| **count) {
        Some((guess, _)) => wrong.fix(format!("this would fit: {guess}")),
        None => {
            let below = match expected {
                Some(path) => format!("; blobs would be below {path}"),
                None => String::new(),
            };
            wrong.fix(format!(
                "this looks like no registry, or its prefix is missing in the address{below}"
            ))
        }
    }
}

/// What is wrong, and what to do.
fn describe(error: &object_store::Error) -> Remark {
    use object_store::Error;
    let text = error.to_string();
    let has = |word: &str| text.contains(word);
    let fix = match error {
        Error::Unauthenticated { .. } => "give the right keys",
        Error::PermissionDenied { .. } => {
            "are the keys right, and may they list the bucket and read from it? The cache needs no more"
        }
        Error::NotFound { .. } => "is the name of the bucket or folder right?",
        _ if has("InvalidAccessKeyId") || has("SignatureDoesNotMatch") || has("403") => {
            "are the keys right, and may they list the bucket and read from it?"
        }
        _ if has("169.254.169.254") || has("metadata") => {
            "no keys were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your storage has"
        }
        _ if has("NoSuchBucket") => "is the name of the bucket right?",
        _ if has("http") || has("HTTP") || has("connect") => {
            "is the address right (AWS_ENDPOINT; with http also AWS_ALLOW_HTTP=true), does a firewall keep it away?"
        }
        _ => "see the storage's own log",
    };
    Remark::wrong(format!("storage: {text}")).fix(fix)
}
