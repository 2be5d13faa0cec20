//! When to list a repository's links instead of reading them one by one.

/// How many objects a list request shows.
pub(super) const LISTED_AT_ONCE: u64 = 1000;

/// A list request costs a store as much as so many reads: S3 asks twelve times the price for it.
const WORTH: u64 = 12;

/// The most links that are held at a time: some 10 MiB.
const MOST: u64 = 200_000;

/// How many links may be listed to prove so many that are cached, if any. Nobody knows before how many
/// links a repository has. The list is given up where it has cost as much as reading them would have,
/// so at worst both together cost twice the cheaper of the two.
pub(super) fn worth_listing(cached: u64) -> Option<u64> {
    let requests = cached / WORTH;
    (requests >= 2).then(|| requests.saturating_mul(LISTED_AT_ONCE).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_read_and_many_are_listed() {
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
