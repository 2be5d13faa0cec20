//! Bends the rules of the protocol in the nodes' own code, one at a time, and counts the seeds until
//! one finds what breaks. Only a build with `--cfg layercache_bends` can do that.

#[cfg(not(layercache_bends))]
pub(crate) fn find(_: &str, _: u64) {
    panic!(
        "this build cannot bend rules; this one can:\n\
         RUSTFLAGS='--cfg tokio_unstable --cfg layercache_bends' LAYERCACHE_SIM_BEND=all \
         cargo test --package simulation no_seed -- --nocapture"
    );
}

#[cfg(not(layercache_bends))]
pub(crate) fn bend(_: Option<&str>) {}

#[cfg(layercache_bends)]
pub(crate) use with_bends::{bend, find};

#[cfg(layercache_bends)]
mod with_bends {
    use crate::finding::Finding;
    use crate::run::run;
    use std::num::NonZero;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Instant;

    /// How many of the rules have to be found, in percent.
    const NEEDED: usize = 90;

    /// Bends a rule in the nodes that run in this thread.
    pub(crate) fn bend(rule: Option<&str>) {
        let is_known = layercache::bends::bend(rule);
        assert!(is_known, "there is no rule {rule:?}");
    }

    /// Bends each of these rules (names with commas in between, or `all`), and runs up to `most`
    /// seeds with each.
    ///
    /// # Panics
    /// If too few of them are found.
    pub(crate) fn find(rules: &str, most: u64) {
        let rules = match rules {
            "all" => layercache::bends::rules(),
            some => some.split(',').map(str::to_owned).collect(),
        };
        println!("| bent rule | seeds until it is found | found as |\n|---|---|---|");
        let mut found = 0;
        for rule in &rules {
            let began = Instant::now();
            match first_wrong(rule, most) {
                Some((seed, kind)) => {
                    found += 1;
                    println!("| `{rule}` | {} | {kind} |", seed + 1);
                }
                None => println!("| `{rule}` | not in {most} | |"),
            }
            eprintln!("{rule}: {:?}", began.elapsed());
        }
        println!("{found} of {} rules found", rules.len());
        assert!(
            found * 100 >= rules.len() * NEEDED,
            "too few rules are found"
        );
    }

    /// Returns the first seed that finds what breaks without the rule.
    fn first_wrong(rule: &str, most: u64) -> Option<(u64, String)> {
        let (next, end) = (AtomicU64::new(0), AtomicU64::new(most));
        let first = Mutex::new(None);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    bend(Some(rule));
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end.load(Ordering::Relaxed) {
                            return;
                        }
                        if let Some(Finding { kind, .. }) = run(seed).finding {
                            // The other threads end the seeds before this one.
                            end.fetch_min(seed, Ordering::Relaxed);
                            let mut first = first.lock().unwrap();
                            if first.as_ref().is_none_or(|(known, _)| seed < *known) {
                                *first = Some((seed, kind));
                            }
                        }
                    }
                });
            }
        });
        first.into_inner().unwrap()
    }
}
