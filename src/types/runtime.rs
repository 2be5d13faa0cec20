//! Does the caller run in a tokio runtime that the cache can use?

use crate::types::Error;
#[cfg(feature = "redis")]
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;
#[cfg(feature = "redis")]
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Returns the tokio runtime in which the caller runs, if it has timers.
pub(crate) fn current() -> Result<Handle, Error> {
    match Handle::try_current() {
        Ok(runtime) => has_timers().map(|()| runtime),
        Err(_) => Err(Error::Runtime {
            problem: "this code does not run in one; await it below `#[tokio::main]` or \
                      `tokio::runtime::Runtime::block_on`",
        }),
    }
}

/// Checks that the caller runs in a tokio runtime with timers.
pub(crate) fn check() -> Result<(), Error> {
    current().map(drop)
}

/// Checks the runtime in which the caller runs, if it runs in one. A cache may be built before its
/// runtime exists.
pub(crate) fn check_here() -> Result<(), Error> {
    match Handle::try_current() {
        Ok(_) => has_timers(),
        Err(_) => Ok(()),
    }
}

/// Checks that a runtime in which the caller runs has I/O, without which Redis cannot be reached.
#[cfg(feature = "redis")]
pub(crate) fn has_io() -> Result<(), Error> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0");
    let (Ok(_), Ok(socket)) = (Handle::try_current(), socket) else {
        return Ok(());
    };
    let registers = || {
        socket
            .set_nonblocking(true)
            .and_then(|()| UdpSocket::from_std(socket))
    };
    if catch_unwind(AssertUnwindSafe(registers)).is_ok() {
        return Ok(());
    }
    Err(Error::Runtime {
        problem: "its I/O is disabled, so Redis cannot be reached; build it with \
                  `tokio::runtime::Builder::enable_all`",
    })
}

#[cfg(test)]
thread_local! {
    static CHECKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Returns how often this thread has checked for timers.
#[cfg(test)]
pub(crate) fn checks() -> usize {
    CHECKS.get()
}

/// Makes a timer, which costs some nanoseconds. Tokio has no other way to learn whether timers are
/// enabled: without them it panics here.
fn has_timers() -> Result<(), Error> {
    #[cfg(test)]
    CHECKS.set(CHECKS.get() + 1);
    catch_unwind(|| drop(sleep(Duration::ZERO))).map_err(|_| Error::Runtime {
        problem: "its timers are disabled; build it with \
                  `tokio::runtime::Builder::enable_all`",
    })
}
