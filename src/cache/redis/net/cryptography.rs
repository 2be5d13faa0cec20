//! Has the process a provider of cryptography for TLS?

/// Returns whether the process has a provider of cryptography. redis-rs panics without one.
///
/// rustls may be able to choose one by itself, but it has no function that tries this without a
/// panic.
#[cfg(feature = "redis-tls")]
pub(crate) fn has_provider() -> bool {
    rustls::crypto::CryptoProvider::get_default().is_some()
}

#[cfg(not(feature = "redis-tls"))]
pub(crate) const fn has_provider() -> bool {
    false
}
