//! When is it cheaper to list a repository's links than to read them one by one?

/// Number of objects that one list request returns.
pub(super) const LISTED_AT_ONCE: u64 = 1000;

/// Number of reads that cost as much as one list request. S3 charges twelve times the price of a
/// read for it.
const WORTH: u64 = 12;

/// Maximum number of links that are held at a time: some 10 MiB.
const MOST: u64 = 200_000;

/// Returns how many links may be listed to prove `cached` links, or `None` if listing is not worth
/// it. The number of a repository's links is not known in advance. So the list stops when it has
/// cost as much as reading the cached links; at worst the two together cost twice the cheaper one.
pub(super) fn worth_listing(cached: u64) -> Option<u64> {
    let requests = cached / WORTH;
    (requests >= 2).then(|| requests.saturating_mul(LISTED_AT_ONCE).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_links_are_listed_and_few_are_read() {
        for (cached, most) in [
            (0, None),
            (23, None),
            (24, Some(2000)),
            (500, Some(41_000)),
            (100_000, Some(MOST)),
            (u64::MAX, Some(MOST)),
        ] {
            assert_eq!(worth_listing(cached), most, "{cached}");
        }
    }
}
