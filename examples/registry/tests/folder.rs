//! Tests the example registry's store in a folder.

use futures::future::try_join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use registry::folder::Folder;
use std::sync::Arc;

const WRITERS: usize = 8;
const ROUNDS: usize = 2000;

/// Each writer deletes its own file, and the folder with it if it is the last file. At the same
/// time the other writers create the folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_succeeds_while_other_writers_remove_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(Folder::new(root.path()).unwrap());
    store.put(&"source/data".into(), "x".into()).await.unwrap();
    let writer = |i: usize| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let to = Path::from(format!("r/_uploads/{i}/data"));
                match (i + round) % 3 {
                    0 => drop(store.put(&to, "x".into()).await?),
                    1 => store.copy(&"source/data".into(), &to).await?,
                    _ => {
                        let mut parts = store.put_multipart(&to).await?;
                        parts.put_part("x".into()).await?;
                        parts.complete().await?;
                    }
                }
                store.delete(&to).await?;
            }
            Ok::<_, object_store::Error>(())
        })
    };
    let written = try_join_all((0..WRITERS).map(writer)).await.unwrap();
    for written in written {
        written.unwrap();
    }
}
