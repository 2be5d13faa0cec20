//! Tests of the memory tier as a whole.

use super::*;
use crate::cache::LayerInfoCache;
use crate::cache::shared::Fact;
use crate::types::{Digest, Link};

const DIGEST: Digest = Digest::Sha256([1; 32]);

fn meta() -> LayerMeta {
    LayerMeta::new("a/data", 5).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_fact_expires_however_often_it_is_read() {
    let ttl = Duration::from_secs(100);
    let cache = MemoryCache::new(MemoryConfig::default().with_ttl(ttl));
    let link = Link::layer("a".parse().unwrap(), DIGEST);
    cache.add(&link).await.unwrap();
    cache.set_meta(&DIGEST, &meta()).await.unwrap();
    for second in 0..100 {
        let (known, described) = (cache.contains(&link).await, cache.meta(&DIGEST).await);
        assert!(second >= 90 || known.unwrap(), "gone after {second} s");
        assert!(second >= 90 || described.unwrap().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!cache.contains(&link).await.unwrap());
    assert_eq!(cache.meta(&DIGEST).await.unwrap(), None);
}

#[test]
fn jitter_takes_off_and_never_adds() {
    let ttl = Duration::from_secs(100);
    for _ in 0..1000 {
        let jittered = jittered(ttl);
        assert!(jittered <= ttl && jittered >= ttl.mul_f64(0.9));
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    let capacity = 100_000;
    let cache = MemoryCache::new(MemoryConfig::default().with_capacity(capacity));
    for i in 0..10_000u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&i.to_be_bytes());
        cache
            .set_meta(&Digest::Sha256(hash), &meta())
            .await
            .unwrap();
    }
    let entries = &cache.memory.entries;
    entries.run_pending_tasks();
    assert!(entries.weighted_size() <= capacity);
    assert!(entries.entry_count() > 50, "it is used");
}

#[tokio::test]
async fn memberships_that_make_room_for_others_are_counted() {
    let make = || MemoryCache::new(MemoryConfig::default());
    let (cache, hits) = crate::telemetry::metrics::counted(make);
    for i in 0..1030 {
        let link = Link::layer(format!("r{i}").parse().unwrap(), DIGEST);
        cache.add(&link).await.unwrap();
    }
    assert_eq!(hits("memberships"), 6);
}

#[tokio::test]
async fn an_empty_meta_is_believed_of_the_empty_blob_only() {
    let cache = MemoryCache::new(MemoryConfig::default());
    let empty = LayerMeta::new("a/data", 0).unwrap();
    cache.set_meta(&DIGEST, &meta()).await.unwrap();
    cache.set_meta(&DIGEST, &empty).await.unwrap();
    assert_eq!(cache.meta(&DIGEST).await.unwrap(), None);
    let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let nothing: Digest = nothing.parse().unwrap();
    cache.set_meta(&nothing, &empty).await.unwrap();
    assert_eq!(cache.meta(&nothing).await.unwrap(), Some(empty));
}

/// Returns a memory with this capacity in bytes, without other nodes.
fn memory_of(capacity: u64) -> Memory {
    let config = MemoryConfig::default().with_capacity(capacity);
    Memory::new(config, Arc::new(Coherence::alone()))
}

/// Fills a meta of this length, as a load does that has asked the backend.
fn fill(memory: &Memory, digest: Digest, length: u64) {
    let meta = LayerMeta::new("a/data", length).unwrap();
    memory.fill(
        &PerKey::one(Fact::meta(digest, meta)),
        memory.read_stamps(&Question::Meta(digest)),
    );
}

fn length(memory: &Memory, digest: &Digest) -> Option<u64> {
    let found = memory.get(QuestionRef::Meta(digest));
    found?.meta().map(|meta| meta.length())
}

/// Asks until this thread's cache has the entry.
fn ask_often(memory: &Memory, digest: &Digest) {
    for _ in 0..3 {
        assert!(length(memory, digest).is_some());
    }
}

#[test]
fn what_a_thread_keeps_gives_way_to_what_is_filled_later() {
    let memory = memory_of(1 << 20);
    for length_now in 1..50 {
        fill(&memory, DIGEST, length_now);
        assert_eq!(length(&memory, &DIGEST), Some(length_now));
        ask_often(&memory, &DIGEST);
    }
}

#[test]
fn what_a_thread_keeps_gives_way_also_if_it_was_evicted_before() {
    let memory = memory_of(100_000);
    let other = |i: u32| {
        let mut hash = [7; 32];
        hash[..4].copy_from_slice(&i.to_le_bytes());
        Digest::Sha256(hash)
    };
    fill(&memory, DIGEST, 1);
    ask_often(&memory, &DIGEST);
    let tag = memory.tag(EntryKeyRef::Blob(&DIGEST));
    for i in 0..100_000 {
        // These are asked for more often than `DIGEST`, so that they evict it.
        fill(&memory, other(i % 400), 1);
        let _ = length(&memory, &other(i % 400));
        if !memory.entries.contains_key(&tag) {
            break;
        }
    }
    assert!(!memory.entries.contains_key(&tag), "it is evicted");
    for length_now in 2..20 {
        fill(&memory, DIGEST, length_now);
        assert!([None, Some(length_now)].contains(&length(&memory, &DIGEST)));
    }
}

#[test]
fn what_a_thread_keeps_is_dead_after_a_change_and_nothing_to_another_memory() {
    let (memory, another) = (memory_of(1 << 20), memory_of(1 << 20));
    fill(&memory, DIGEST, 1);
    ask_often(&memory, &DIGEST);
    assert_eq!(length(&another, &DIGEST), None);
    memory.generations().bump(&DIGEST);
    assert_eq!(length(&memory, &DIGEST), None);
}

#[test]
fn blobs_whose_digests_begin_alike_take_turns_and_are_never_taken_for_each_other() {
    let memory = memory_of(1 << 20);
    let mut hash = [1; 32];
    hash[31] = 2;
    let twin = Digest::Sha256(hash);
    for _ in 0..3 {
        fill(&memory, DIGEST, 1);
        ask_often(&memory, &DIGEST);
        assert_eq!(length(&memory, &twin), None);
        fill(&memory, twin, 2);
        ask_often(&memory, &twin);
        assert_eq!(length(&memory, &twin), Some(2));
        assert_eq!(length(&memory, &DIGEST), None);
    }
}

/// Returns a digest whose tag in `there` is that of `digest` in `here`. Its other bytes are the same.
fn with_same_tag(digest: &Digest, here: &Memory, there: &Memory) -> Digest {
    let Digest::Sha256(mut hash) = *digest else {
        panic!("a SHA-256");
    };
    let (first, _) = hash.split_first_chunk_mut::<8>().unwrap();
    // The tag is made of these bytes and the salt, in one order or the other.
    let is_little = {
        let probe = Digest::Sha256([
            1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1,
        ]);
        EntryKeyRef::Blob(&probe).tag(0) == Tag(1)
    };
    let mix = here.salt ^ there.salt;
    let mix = if is_little {
        mix.to_le_bytes()
    } else {
        mix.to_be_bytes()
    };
    for (byte, mix) in first.iter_mut().zip(mix) {
        *byte ^= mix;
    }
    let other = Digest::Sha256(hash);
    assert_eq!(
        EntryKeyRef::Blob(digest).tag(here.salt),
        EntryKeyRef::Blob(&other).tag(there.salt)
    );
    other
}

#[test]
fn name_spaces_share_the_capacity_and_nothing_else() {
    let memory = memory_of(1 << 20);
    let [a, b] = [(); 2].map(|()| memory.in_new_space());
    fill(&a, DIGEST, 1);
    assert_eq!(
        (length(&b, &DIGEST), length(&memory, &DIGEST)),
        (None, None)
    );
    fill(&b, DIGEST, 2);
    fill(&memory, DIGEST, 3);
    for _ in 0..3 {
        let lengths = [&a, &b, &memory].map(|space| length(space, &DIGEST));
        assert_eq!(lengths, [Some(1), Some(2), Some(3)], "of three entries");
    }
    memory.entries.run_pending_tasks();
    assert_eq!(memory.entries.entry_count(), 3);
    memory.generations().bump(&DIGEST);
    let lengths = [&a, &b, &memory].map(|space| length(space, &DIGEST));
    assert_eq!(lengths, [None; 3], "they share their generations");
}

#[test]
fn entries_of_two_name_spaces_with_the_same_tag_are_not_confused() {
    let memory = memory_of(1 << 20);
    let [a, b] = [(); 2].map(|()| memory.in_new_space());
    let there = with_same_tag(&DIGEST, &a, &b);
    fill(&a, DIGEST, 1);
    ask_often(&a, &DIGEST);
    let member = Link::layer("a".parse().unwrap(), DIGEST);
    let same = Link::layer("a".parse().unwrap(), there);
    let add = |space: &Memory, link: &Link| {
        let read_stamps = space.read_stamps(&Question::Link(link.clone()));
        space.fill(&PerKey::one(Fact::member(link.clone())), read_stamps);
    };
    let is_member = |space: &Memory, link: &Link| {
        let found = space.get(QuestionRef::Link(link.into()));
        found.is_some_and(|found| found.is_member())
    };
    add(&a, &member);
    assert_eq!(length(&b, &there), None);
    assert!(!is_member(&b, &same) && !b.keeps(&Key::Link(same.clone())));
    // The entry of the one takes the place of the other's, and has none of its facts.
    fill(&b, there, 2);
    assert_eq!((length(&a, &DIGEST), length(&b, &there)), (None, Some(2)));
    assert!(!is_member(&a, &member) && !is_member(&b, &same));
    add(&a, &member);
    assert_eq!((length(&a, &DIGEST), length(&b, &there)), (None, None));
    assert!(is_member(&a, &member) && !is_member(&b, &same));
}

#[test]
fn a_name_space_keeps_its_entries_when_its_table_of_repositories_is_full() {
    let memory = memory_of(1 << 24);
    let [a, b] = [(); 2].map(|()| memory.in_new_space());
    let link = |i: usize| Link::layer(format!("r{i}").parse().unwrap(), DIGEST);
    let full = a.names();
    for i in 0.. {
        if full.is_full() {
            break;
        }
        assert!(full.number(&link(i)).is_some());
    }
    assert!(!Arc::ptr_eq(&full, &a.names()), "a new table");
    fill(&a, DIGEST, 1);
    assert_eq!((length(&a, &DIGEST), length(&b, &DIGEST)), (Some(1), None));
}
