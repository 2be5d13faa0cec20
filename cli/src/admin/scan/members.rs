//! How are the members of a set read, a page at a time?

use super::{NONE, number, on, unexpected};
use layercache::internals::AdminClient;
use layercache::{Error, LinkKind, RepositoryName};
use redis::{RedisError, from_redis_value};

/// A page of a set's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberPage {
    /// Where the next page begins; 0 if there is none.
    pub(crate) next: u64,
    /// How many members the set has in all.
    pub(crate) in_all: u64,
    pub(crate) members: Vec<Vec<u8>>,
}

/// Reads about `count` members of a set. Returns `None` if the key is not a set.
pub(crate) async fn member_page(
    client: &AdminClient,
    kind: LinkKind,
    repository: &RepositoryName,
    cursor: u64,
    count: usize,
) -> Result<Option<MemberPage>, Error> {
    let set = client.set_key(kind, repository);
    let mut scan = on("SSCAN", &set, &[cursor]);
    scan.arg("COUNT").arg(count);
    let replies = client.run("scan", vec![on("SCARD", &set, NONE), scan]);
    let replies = replies.await?;
    let [size, page] = <[_; 2]>::try_from(replies).map_err(|_| unexpected("scan"))?;
    let (Some(size), Some(page)) = (size, page) else {
        return Ok(None);
    };
    let (next, members) = from_redis_value(page).map_err(|error| Error::Cache {
        tier: "redis",
        operation: "scan",
        source: Box::new(RedisError::from(error)),
    })?;
    Ok(Some(MemberPage {
        next,
        in_all: number(&size).ok_or_else(|| unexpected("scan"))?,
        members,
    }))
}
