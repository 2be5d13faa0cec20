//! Opens the store behind the cache, which `--storage` names.

use crate::folder::Folder;
use layercache::CachedStore;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use url::Url;

/// A store of any kind, with the cache in front of it.
pub(crate) type Store = CachedStore<Arc<dyn ObjectStore>>;

type BoxError = Box<dyn Error + Send + Sync>;

/// Opens `file:///folder`, a plain folder, `s3://bucket/prefix` or `memory://`.
pub(crate) fn open(address: &str) -> Result<Arc<dyn ObjectStore>, BoxError> {
    if !address.contains("://") {
        return folder(Path::new(address));
    }
    let url = Url::parse(address)?;
    match url.scheme() {
        "file" => {
            let path = url.to_file_path();
            folder(&path.map_err(|()| "a file address needs three slashes: file:///folder")?)
        }
        "s3" => bucket(&url),
        "memory" => Ok(Arc::new(InMemory::new())),
        scheme => Err(format!("the scheme `{scheme}` is unknown; use file, s3 or memory").into()),
    }
}

fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, BoxError> {
    if path.as_os_str().is_empty() {
        return Err("the name of the folder is empty".into());
    }
    std::fs::create_dir_all(path)
        .map_err(|error| format!("cannot create the folder {}: {error}", path.display()))?;
    Ok(Arc::new(Folder::new(path)?))
}

fn bucket(url: &Url) -> Result<Arc<dyn ObjectStore>, BoxError> {
    let name = url.host_str().ok_or("the bucket has no name")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "it holds keys; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into(),
        );
    }
    let store = AmazonS3Builder::from_env().with_bucket_name(name).build()?;
    let prefix = object_store::path::Path::from_url_path(url.path())?;
    if prefix.as_ref().is_empty() {
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}
