//! The guide: what this crate promises, and how to run it.
//!
//! | you want to | page |
//! |---|---|
//! | begin | [`getting_started`] |
//! | choose settings | [`settings`] |
//! | combine it with other wrappers | [`stacking`] |
//! | run several nodes | [`nodes`], [`redis`] |
//! | know what is promised, and why | [`coherence`] |
//! | know what to do when something fails | [`failure`] |
//! | watch it | [`metrics`] |
//! | cache another layout of paths | [`layouts`] |
//! | use it without `object_store` | [`own_backend`] |
//! | live beside a Go registry, or leave it | [`go_registry`], [`migrating`] |

macro_rules! pages {
    ($($page:ident)*) => {
        $(pub mod $page {
            #![doc = include_str!(concat!(stringify!($page), ".md"))]
        })*
    };
}

pages! { coherence failure getting_started go_registry layouts metrics migrating nodes own_backend redis settings stacking }
