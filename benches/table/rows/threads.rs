//! Measures whether two threads that ask for the same blobs get twice as many answers as one.

use super::hits::{bare, fill, stat};
use crate::clock::median;
use crate::table::{Row, Table, Target};
use crate::warm::{self, digest};
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

const HOT: u32 = 10;
const QUESTIONS: u32 = 2_000_000;
const ROUNDS: usize = 7;

pub(crate) fn measure(table: &mut Table) {
    let moka = bare(HOT);
    let (_runtime, store) = warm::store_beside(HOT, |digest| fill(&moka, digest));
    let (_other, apart) = warm::store(HOT);
    let digests: Vec<_> = (0..HOT).map(digest).collect();
    let ours = |i: usize| {
        // As in a server, each request has a repository and a name of its own.
        let repository = warm::repository(&store);
        let digests = &digests;
        move |at: usize| {
            black_box(stat(&repository, &digests[(at + i) % digests.len()]));
        }
    };
    // The limit of the machine: two threads that share nothing.
    let limit = |i: usize| {
        let repository = warm::repository(if i == 0 { &store } else { &apart });
        let digests = &digests;
        move |at: usize| {
            black_box(stat(&repository, &digests[(at + i) % digests.len()]));
        }
    };
    let raw = |i: usize| {
        let (moka, digests) = (&moka, &digests);
        move |at: usize| {
            black_box(moka.get(digests[(at + i) % digests.len()].as_bytes()));
        }
    };
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let one = rate(1, &ours);
            let [two, most] = [rate(2, &ours), rate(2, &limit)];
            let [one_raw, two_raw] = [rate(1, &raw), rate(2, &raw)];
            [one, two, two / one, most / one, two_raw / one_raw]
        })
        .collect();
    let [one, two, ratio, most, of_moka] =
        std::array::from_fn(|i| median(rounds.iter().map(|round| round[i])));
    table.add(Row {
        what: "typed `stat`, memory hit, 2 threads on 10 hot keys",
        yardstick: "1 thread",
        target: Target::AtLeast(1.7),
        ratio,
        detail: format!(
            "{:.1} million/s against {:.1}; a cache for each thread {most:.2} ×; raw moka {of_moka:.2} ×",
            two / 1e6,
            one / 1e6,
        ),
        holds: true,
    });
}

/// Returns the answers per second of all threads together.
fn rate<Q: FnMut(usize) + Send>(threads: usize, question: &(impl Fn(usize) -> Q + Sync)) -> f64 {
    let start = Barrier::new(threads);
    let seconds = thread::scope(|scope| {
        let run = |i: usize| {
            let (mut ask, start) = (question(i), &start);
            scope.spawn(move || {
                start.wait();
                let began = Instant::now();
                for at in 0..QUESTIONS as usize {
                    ask(at);
                }
                began.elapsed().as_secs_f64()
            })
        };
        let all: Vec<_> = (0..threads).map(run).collect();
        all.into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .fold(0.0, f64::max)
    });
    f64::from(QUESTIONS) * threads as f64 / seconds
}
