//! Which storage a command uses: the options for it, and how it is opened.

use crate::command_error::CommandError;
use clap::Args;
use layercache::layout::{self, Layout};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use std::path::Path as Folder;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The options of the storage and its layout.
#[derive(Args, Clone)]
// It has no `Debug`, because an address may hold a secret in a wrong place.
pub(crate) struct StorageOptions {
    /// The address of the registry's storage: s3://bucket/prefix, gs://bucket/prefix,
    /// az://container/prefix, file:///folder or a plain folder
    ///
    /// Access keys, endpoint and region come from the usual environment variables: AWS_*, GOOGLE_*
    /// or AZURE_*.
    #[arg(
        long,
        env = "LAYERCACHE_STORAGE",
        hide_env_values = true,
        value_name = "URL"
    )]
    storage: Option<String>,

    /// The layout of the paths: `distribution`, `oci`, or a template such as `oci-blobs/{digest}`
    ///
    /// `distribution` is the layout of the Go registry. `oci` is an OCI image layout for each
    /// repository, as in zot.
    #[arg(
        long,
        env = "LAYERCACHE_LAYOUT",
        default_value = "distribution",
        value_name = "LAYOUT"
    )]
    layout: String,

    /// The path below which the layout begins
    ///
    /// Default: docker/registry/v2 for `distribution`, and the top of the storage for `oci`. A
    /// template contains its root.
    #[arg(long, env = "LAYERCACHE_ROOT", value_name = "PATH")]
    root: Option<String>,
}

/// An opened store, and its name for messages.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The address of the store, without secrets.
    pub(crate) place: String,
}

impl StorageOptions {
    /// Opens the storage. Returns `None` if the options name none. For a bucket it sends no
    /// request.
    pub(crate) fn open(&self) -> Result<Option<Storage>, CommandError> {
        let named = self.storage.as_deref().filter(|name| !name.is_empty());
        named.map(open).transpose()
    }

    /// Opens the storage for a command that needs one. It is an error if the options name none.
    pub(crate) fn required(&self) -> Result<Storage, CommandError> {
        self.open()?.ok_or_else(|| {
            CommandError::new("no storage is given")
                .help("set its address with --storage URL or LAYERCACHE_STORAGE")
        })
    }

    /// Returns the layout of the storage's paths.
    pub(crate) fn layout(&self) -> Result<Arc<dyn Layout>, CommandError> {
        let parsed = layout::parse(&self.layout, self.root.as_deref());
        parsed.map_err(|error| {
            CommandError::new("--layout and --root do not name a layout").because(error)
        })
    }
}

const SCHEMES: &str = "its scheme is unknown; the schemes are s3, gs, az and file";

fn open(place: &str) -> Result<Storage, CommandError> {
    if !place.contains("://") {
        return folder(Folder::new(place));
    }
    let url = Url::parse(place).map_err(|error| refuse(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it contains a user or a password").help(
            "set the access keys in environment variables: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_*, AZURE_*",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it has a query (`?`) or a fragment (`#`)")
            .help("make settings in environment variables: AWS_ENDPOINT, AWS_REGION, AZURE_STORAGE_SAS_TOKEN"));
    }
    match url.scheme() {
        "file" => match url.to_file_path() {
            Ok(path) => folder(&path),
            Err(()) => Err(refuse("a file address has three slashes: file:///folder")),
        },
        "s3" | "gs" | "az" => bucket(&url),
        _ => Err(refuse(SCHEMES)),
    }
}

fn refuse(why: impl Into<String>) -> CommandError {
    CommandError::new("--storage: this is not an address of a storage").because(why.into())
}

/// Opens a folder. It must exist: a folder that the command creates would be empty, and would hide
/// a wrong name.
fn folder(path: &Folder) -> Result<Storage, CommandError> {
    let place = path.display().to_string();
    let cannot = |why| CommandError::new(format!("cannot open the folder {place}")).because(why);
    let kind = std::fs::metadata(path).map_err(cannot)?;
    if !kind.is_dir() {
        return Err(CommandError::new(format!("{place} is not a folder")));
    }
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| {
        CommandError::new(format!("cannot open the folder {place}")).because(error)
    })?;
    Ok(Storage {
        store: Arc::new(store),
        place,
    })
}

/// Opens a bucket, with the settings that the environment has for its kind of storage.
fn bucket(url: &Url) -> Result<Storage, CommandError> {
    let place = url.as_str().trim_end_matches('/').to_owned();
    let cannot = |error: object_store::Error| {
        CommandError::new(format!("cannot open {place}"))
            .because(error)
            .help("check the environment variables of this storage: AWS_*, GOOGLE_* or AZURE_*")
    };
    // A user waits for the answer, so the command gives up sooner than `object_store` does by
    // default.
    let retry = RetryConfig {
        max_retries: 4,
        retry_timeout: Duration::from_secs(20),
        ..RetryConfig::default()
    };
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|error| cannot(error.into()))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).build().map_err(cannot)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).build().map_err(cannot)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            Arc::new(builder.with_retry(retry).build().map_err(cannot)?)
        }
        _ => return Err(refuse(SCHEMES)),
    };
    let store: Arc<dyn ObjectStore> = match prefix.as_ref().is_empty() {
        true => store,
        false => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Storage { store, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(layout: &str, root: Option<&str>) -> StorageOptions {
        StorageOptions {
            storage: None,
            layout: layout.to_owned(),
            root: root.map(str::to_owned),
        }
    }

    #[test]
    fn a_layout_has_its_root() {
        let printed = |layout, root| format!("{:?}", options(layout, root).layout().unwrap());
        assert!(printed("distribution", None).contains("docker/registry/v2"));
        assert!(printed("distribution", Some("a/b")).contains("a/b"));
        assert!(printed("oci", Some("zot")).contains("zot"));
        assert!(printed("x/{digest}", None).contains("Digest"));
        for (layout, root) in [("x", None), ("x/{digest}", Some("a")), ("oci", Some("//"))] {
            assert!(options(layout, root).layout().is_err(), "{layout}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_an_address_that_is_not_valid() {
        for place in [
            "s3://key:s3cret@bucket",
            "s3cret://bucket",
            "az://container?sig=s3cret",
            "gs://bucket#s3cret",
            "file://s3cret/folder",
        ] {
            let error = open(place).expect_err(place);
            let text = format!("{} {:?}", error.what(), error.causes());
            assert!(!text.contains("s3cret"), "{text}");
        }
    }
}
