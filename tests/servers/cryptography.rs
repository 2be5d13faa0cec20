//! Tests TLS to Redis with and without a provider of cryptography. A process keeps its provider for
//! ever, so this file has one test.

use test_support as support;

use layercache::{Digest, LayerInfoCache, Link, RedisCache, RedisConfig};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use support::redis::{Redis, Setup, Version};
use support::tls::Certificates;

#[tokio::test]
async fn tls_needs_a_provider_and_the_error_says_how_to_install_one() {
    for url in [
        "rediss://:pa55w0rd@127.0.0.1",
        "rediss+sentinel://:pa55w0rd@127.0.0.1/main",
        "rediss+cluster://:pa55w0rd@127.0.0.1",
    ] {
        let refused = RedisCache::new(RedisConfig::new(url)).unwrap_err();
        let said = format!("{refused} {:?}", refused.source());
        assert!(said.contains("install_default()"), "{said}");
        assert!(
            said.contains("redis url") && !said.contains("pa55w0rd"),
            "{said}"
        );
    }
    RedisCache::new(RedisConfig::new("redis://127.0.0.1")).expect("only TLS needs a provider");

    let certificates = Arc::new(Certificates::make_all()); // installs a provider
    let setup = Setup::new(Version::Redis, &[]).with_tls(&certificates);
    let redis = Redis::start_as(setup).await;
    let config = RedisConfig::new(redis.url()).with_timeout(Duration::from_secs(5));
    let cache = RedisCache::new(config).unwrap();
    let link = Link::layer("a/b".parse().unwrap(), Digest::Sha256([1; 32]));
    cache.add(&link).await.unwrap();
    assert!(cache.contains(&link).await.unwrap());
}
