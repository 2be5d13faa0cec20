//! The guide: one page for each question about using and running the cache.
//!
//! | you want to | page |
//! |---|---|
//! | begin | [`getting_started`] |
//! | choose settings | [`settings`] |
//! | combine it with other wrappers | [`stacking`] |
//! | run several nodes | [`nodes`], [`redis`] |
//! | know what is guaranteed, and why | [`coherence`] |
//! | know what to do when something fails | [`failure`] |
//! | watch it | [`metrics`] |
//! | look at, correct, fill or empty a cache | [`operating`] |
//! | cache another layout of paths | [`layouts`] |
//! | use it without `object_store` | [`own_backend`] |
//! | run the example registry | [`example_registry`] |
//! | run it beside a Go registry, or replace one | [`go_registry`], [`migrating`] |
//! | know what it costs, and how fast it is | [`costs`], [`benchmarks`] |
//! | decide whether to use it | [`comparison`] |

macro_rules! pages {
    ($($page:ident)*) => {
        $(pub mod $page {
            #![doc = include_str!(concat!(stringify!($page), ".md"))]
        })*
    };
}

pages! {
    benchmarks coherence comparison costs example_registry failure getting_started go_registry layouts metrics
    migrating nodes operating own_backend redis settings stacking
}
