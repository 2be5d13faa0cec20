//! How does a typed read begin when it is first polled, without an `async` block?

use super::{Answering, Loading};
use crate::types::{Answer, Error};
use futures::future::Either;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A read of the typed API. It looks in memory when it is first polled, so that it does not answer
/// from before a change that its caller has made in the meantime.
///
/// An `async fn` would do the same. But an application compiles the body of an `async fn` again, and
/// with it everything that the body keeps across its waits.
pub(crate) struct Reading<'a, T, F> {
    look_up: Option<F>,
    load: Option<Loading<'a, T>>,
}

impl<'a, T, F: FnOnce() -> Answering<'a, T>> Reading<'a, T, F> {
    pub(crate) const fn new(look_up: F) -> Self {
        Self {
            look_up: Some(look_up),
            load: None,
        }
    }
}

impl<'a, T, F: FnOnce() -> Answering<'a, T> + Unpin> Future for Reading<'a, T, F> {
    type Output = Result<Answer<T>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { look_up, load } = self.get_mut();
        if let Some(look_up) = look_up.take() {
            match look_up() {
                Either::Left(known) => return Poll::Ready(known.into_inner()),
                Either::Right(loading) => *load = Some(loading),
            }
        }
        match load {
            Some(load) => load.as_mut().poll(context),
            // The answer was taken. A finished future stays pending rather than panics.
            None => Poll::Pending,
        }
    }
}
