//! How to write a layout: here for Git LFS, whose clients ask which objects a repository has.
//!
//! ```sh
//! cargo run --release --example custom_layout
//! ```

use layercache::layout::{Layout, Meaning};
use layercache::{CachedStore, Digest, Freshness, Link, LinkKind};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use sha2::Sha256;
use std::error::Error;

/// `<owner>/<repository>/lfs/objects/ab/cd/abcd…`: each repository has its own objects.
#[derive(Debug)]
struct GitLfs;

impl Layout for GitLfs {
    /// Reads the name and the digest from a path. Then checks that the path is the one that they
    /// have, because only one spelling of a path may have a meaning.
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        let (name, object) = location.as_ref().split_once("/lfs/objects/")?;
        let hex = object.rsplit('/').next()?;
        let link = Link::layer(name.parse().ok()?, format!("sha256:{hex}").parse().ok()?);
        (self.link_path(&link)? == *location).then_some(Meaning::RepositoryBlob(link))
    }

    /// Repositories share no content.
    fn blob_path(&self, _digest: &Digest) -> Option<Path> {
        None
    }

    /// The object itself is the membership. Git LFS has one kind of link and one algorithm.
    fn link_path(&self, link: &Link) -> Option<Path> {
        let (LinkKind::Layer, Digest::Sha256(_)) = (link.kind, link.digest) else {
            return None;
        };
        let hex = link.digest.hex();
        let (ab, cd) = (&hex[..2], &hex[2..4]);
        Path::parse(format!("{}/lfs/objects/{ab}/{cd}/{hex}", link.repository)).ok()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = CachedStore::builder(InMemory::new())
        .layout(GitLfs)
        .build()?;

    println!("what paths mean");
    let model = path("octo/models", "a model")?;
    for path in [&model, &Path::from("octo/models/HEAD")] {
        let meaning = match GitLfs.meaning(path) {
            Some(Meaning::RepositoryBlob(link)) => format!("a blob of {}", link.repository),
            _ => "nothing to the cache".to_owned(),
        };
        println!("  {path}: {meaning}");
    }
    store.put(&model, "a model".into()).await?;

    // A client asks this in one `POST /octo/models/info/lfs/objects/batch`.
    let batch = ["a model", "another model"].map(oid);
    let repository = store.registry().repository("octo/models".parse()?);
    for time in ["first", "second"] {
        println!("\nthe {time} batch");
        let answers = repository.stat_many(&batch, Freshness::Cached).await?;
        for (digest, answer) in batch.iter().zip(answers) {
            let action = match answer.value {
                Some(meta) => format!("download {} bytes", meta.length()),
                None => "upload".to_owned(),
            };
            println!(
                "  {}…  {action:17}  says {:?}",
                &digest.hex()[..8],
                answer.status
            );
        }
    }
    Ok(())
}

fn oid(content: &str) -> Digest {
    Digest::Sha256(<Sha256 as sha2::Digest>::digest(content).into())
}

fn path(repository: &str, content: &str) -> Result<Path, Box<dyn Error>> {
    let link = Link::layer(repository.parse()?, oid(content));
    Ok(GitLfs.link_path(&link).ok_or("no path")?)
}
