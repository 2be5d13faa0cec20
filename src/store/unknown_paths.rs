//! Does the layout know any path of this store? If it knows none, the cache does nothing, and the
//! node warns the operator.

use crate::layout::Layout;
use crate::telemetry::metrics;
use ::metrics::Counter;
use object_store::path::Path;
#[cfg(not(test))]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
#[cfg(test)]
use tests::CountedU32 as AtomicU32;

/// Number of calls after which the node warns, if the layout knew the path of none of them.
const WARNED: u32 = 100;

/// The state after a call whose path the layout knew.
const KNOWN: u32 = u32::MAX;

/// Counts the calls of a store whose path the layout does not know.
#[derive(Debug)]
pub(super) struct UnknownPaths {
    calls: Counter,
    /// The number of calls up to [`WARNED`] while the layout knew none of the paths, or [`KNOWN`].
    so_far: AtomicU32,
}

impl UnknownPaths {
    pub(super) fn new() -> Self {
        Self {
            calls: metrics::unknown_paths(),
            so_far: AtomicU32::new(0),
        }
    }

    /// Notes that the layout knew a path. Costs one relaxed load from the second time on.
    pub(super) fn known(&self) {
        if self.so_far.load(Ordering::Relaxed) != KNOWN {
            self.so_far.store(KNOWN, Ordering::Relaxed);
        }
    }

    /// Counts a path that the layout did not know. Warns once, if the layout has known none so far.
    pub(super) fn count(&self, location: &Path, layout: &dyn Layout) {
        self.calls.increment(1);
        let next = |so_far: u32| (so_far < WARNED).then(|| so_far + 1);
        let before = self
            .so_far
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if before == Ok(WARNED - 1) {
            tracing::warn!(
                path = %location,
                ?layout,
                "the layout knew the path of none of the first {WARNED} calls, so nothing is \
                 cached; give this store's layout, with its root, to `CachedStoreBuilder::layout`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Distribution;
    use crate::telemetry::metrics::metered;
    use std::sync::atomic::{self, AtomicUsize};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// An atomic number that counts how often it is read and written.
    #[derive(Debug)]
    pub(super) struct CountedU32 {
        number: atomic::AtomicU32,
        reads: AtomicUsize,
        writes: AtomicUsize,
    }

    impl CountedU32 {
        pub(super) const fn new(number: u32) -> Self {
            Self {
                number: atomic::AtomicU32::new(number),
                reads: AtomicUsize::new(0),
                writes: AtomicUsize::new(0),
            }
        }

        pub(super) fn load(&self, order: Ordering) -> u32 {
            assert_eq!(order, Ordering::Relaxed);
            self.reads.fetch_add(1, Ordering::SeqCst);
            self.number.load(order)
        }

        pub(super) fn store(&self, number: u32, order: Ordering) {
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.number.store(number, order);
        }

        pub(super) fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            next: impl FnMut(u32) -> Option<u32>,
        ) -> Result<u32, u32> {
            self.writes.fetch_add(1, Ordering::SeqCst);
            self.number.fetch_update(set, fetch, next)
        }

        /// Returns the numbers of reads and of writes.
        fn uses(&self) -> (usize, usize) {
            let count = |uses: &AtomicUsize| uses.load(Ordering::SeqCst);
            (count(&self.reads), count(&self.writes))
        }
    }

    /// Collects the fields of all events.
    #[derive(Default, Clone)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Visit for Log {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}: {value:?}"));
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    const NAME: &str = "layercache_unknown_paths_total";

    fn told(calls: impl FnOnce(&UnknownPaths, &Distribution)) -> (Vec<String>, u64) {
        let log = Log::default();
        let (unknown, get) = metered(UnknownPaths::new);
        let layout = Distribution::default();
        tracing::subscriber::with_default(log.clone(), || calls(&unknown, &layout));
        let told = log.0.lock().unwrap().clone();
        (told, get(NAME))
    }

    #[test]
    fn a_store_whose_paths_are_all_unknown_is_warned_of_once() {
        let (told, count) = told(|unknown, layout| {
            for i in 0..3 * WARNED {
                unknown.count(&Path::from(format!("other/{i}")), layout);
            }
        });
        assert_eq!(count, u64::from(3 * WARNED));
        let text = told.join("\n");
        assert_eq!(
            text.matches("CachedStoreBuilder::layout").count(),
            1,
            "{text}"
        );
        assert!(text.contains("path: other/99"), "{text}");
        assert!(text.contains("layout: Distribution"), "{text}");
        assert!(text.contains("docker/registry/v2"), "{text}");
    }

    /// A write would move the cache line between the threads that answer from memory.
    #[test]
    fn a_known_path_costs_one_read_and_no_write() {
        const CALLS: usize = 1000;
        let unknown = UnknownPaths::new();
        unknown.known();
        let (reads, writes) = unknown.so_far.uses();
        for _ in 0..CALLS {
            unknown.known();
        }
        assert_eq!(unknown.so_far.uses(), (reads + CALLS, writes));
    }

    #[test]
    fn a_store_with_one_known_path_is_not_warned_of() {
        for known_at in [0, WARNED - 2] {
            let (told, count) = told(|unknown, layout| {
                for i in 0..2 * WARNED {
                    if i == known_at {
                        unknown.known();
                    }
                    unknown.count(&Path::from("other"), layout);
                }
            });
            assert_eq!(told, Vec::<String>::new());
            assert_eq!(count, u64::from(2 * WARNED), "counted all the same");
        }
    }
}
