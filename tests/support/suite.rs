//! Runs `object_store::integration` through a store.

use object_store::integration::*;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore};

/// The kind of the bare store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bare {
    Memory,
    /// Supports neither `PutMode::Update` nor attributes.
    Files,
    S3,
}

pub async fn suite(store: &dyn ObjectStore, bare: Bare) {
    put_get_delete_list(store).await;
    list_with_offset_exclusivity(store).await;
    get_opts(store).await;
    list_uses_directories_correctly(store).await;
    list_with_delimiter(store).await;
    rename_and_copy(store).await;
    copy_if_not_exists(store).await;
    copy_rename_nonexistent_object(store).await;
    stream_get(store).await;
    put_opts(store, bare != Bare::Files).await;
    multipart_race_condition(store, true).await;
    multipart_out_of_order(store).await;
    if bare != Bare::Files {
        put_get_attributes(store).await;
    }
    let missing = Some(Path::from("there/is/nothing"));
    let error = get_nonexistent_object(store, missing).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

pub async fn multipart_suite(store: &dyn ObjectStore, parts: &dyn MultipartStore) {
    multipart(store, parts).await;
    multipart_with_opts(store, parts).await;
    multipart_put_part_out_of_order(store, parts).await;
}
