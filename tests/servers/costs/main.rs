//! Measures what each public operation costs: round trips to Redis, calls of the backend,
//! allocations. The guide (`src/guide/costs.md`) has the costs, and `guide.rs` compares each cell of
//! its tables with the measurements.

mod allocations;
mod caches;
mod changes;
mod guide;
mod lab;
mod many;
mod reads;
mod warming;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use guide::Figures;
use std::panic::resume_unwind;
use std::thread;

/// The measurements, each of one section of the guide.
const SECTIONS: &[fn() -> LocalBoxFuture<'static, Figures>] = &[
    || reads::measure().boxed_local(),
    || reads::measure_absent().boxed_local(),
    || changes::measure().boxed_local(),
    || many::measure().boxed_local(),
    || many::measure_background().boxed_local(),
    || warming::measure().boxed_local(),
    || caches::measure().boxed_local(),
    || allocations::measure_all().boxed_local(),
];

/// Measures a section, with a runtime and a Redis of its own.
fn measure(section: fn() -> LocalBoxFuture<'static, Figures>) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(section())
}

/// Two sections are measured at the same time. With more, a busy machine ends the trust of nodes.
#[test]
fn the_guide_states_exactly_the_measured_costs() {
    let mut measured = Vec::new();
    for pair in SECTIONS.chunks(2) {
        thread::scope(|scope| {
            let threads: Vec<_> = pair
                .iter()
                .map(|section| scope.spawn(move || measure(*section)))
                .collect();
            for thread in threads {
                match thread.join() {
                    Ok(figures) => measured.push(figures),
                    Err(panic) => resume_unwind(panic),
                }
            }
        });
    }
    guide::assert_equal(measured);
}
