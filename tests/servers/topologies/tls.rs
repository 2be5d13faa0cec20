//! Tests one server that uses TLS.

use super::{assert_reason, assert_serves, keys, only_reads, reason};
use layercache::{RedisCache, RedisConfig};
use std::fs;
use std::sync::Arc;
use test_support::http::{Http, Image};
use test_support::nodes::config_at;
use test_support::redis::{Redis, Setup, Version};
use test_support::registry::Registry;
use test_support::tls::Certificates;

/// Starts a server with certificates of its own, and with these additional arguments.
async fn redis_with(args: &[&str]) -> (Redis, Arc<Certificates>) {
    let certificates = Arc::new(Certificates::make_all());
    let setup = Setup::new(Version::Redis, args).with_tls(&certificates);
    (Redis::start_as(setup).await, certificates)
}

#[tokio::test]
async fn mutual_tls_connects_with_the_ca_and_a_client_certificate() {
    let (redis, certificates) = redis_with(&["--requirepass", "pa55w0rd"]).await;
    assert_serves(&redis.url(), |pattern| keys(&redis, 0, pattern)).await;

    // The address may contain the server's name instead of its IP if the certificate has that name.
    let query = certificates.query();
    let url = format!("rediss://:pa55w0rd@localhost:{}/1?{query}", redis.port());
    assert_serves(&url, |pattern| keys(&redis, 1, pattern)).await;

    let without = format!(
        "rediss://:pa55w0rd@{}?{}",
        redis.address(),
        certificates.authority()
    );
    let reason = only_reads(config_at(without)).await;
    assert_reason(&reason, &["certificate"], &["pa55w0rd"]);
    let another = Certificates::make_all();
    let url = redis.url().replace(
        certificates.path("client").to_str().unwrap(),
        another.path("client").to_str().unwrap(),
    );
    assert_reason(
        &only_reads(config_at(url)).await,
        &["unknownca", "unknown ca"],
        &["pa55w0rd"],
    );
    let wrong = redis.url().replace("pa55w0rd", "wrong-pa55w0rd");
    assert_reason(
        &only_reads(config_at(wrong)).await,
        &["WRONGPASS", "authentication"],
        &["pa55w0rd"],
    );
}

#[tokio::test]
async fn tls_connects_without_a_client_certificate() {
    let (redis, certificates) = redis_with(&["--tls-auth-clients", "no"]).await;
    let url = format!("rediss://{}?{}", redis.address(), certificates.authority());
    assert_serves(&url, |pattern| keys(&redis, 0, pattern)).await;
}

#[tokio::test]
async fn a_server_with_an_untrusted_certificate_is_rejected() {
    let args = ["--tls-auth-clients", "no", "--bind", "127.0.0.1 127.0.0.2"];
    let (redis, certificates) = redis_with(&args).await;
    let another = Certificates::make_all();
    let url = |host: &str, query: String| {
        config_at(format!("rediss://:pa55w0rd@{host}:{}{query}", redis.port()))
    };
    for config in [
        url("127.0.0.1", format!("?{}", another.authority())),
        // The system's roots do not contain the authority.
        url("127.0.0.1", String::new()),
    ] {
        let reason = only_reads(config).await;
        assert_reason(&reason, &["UnknownIssuer", "unknown issuer"], &["pa55w0rd"]);
    }
    // The certificate is for another address.
    let config = url("127.0.0.2", format!("?{}", certificates.authority()));
    assert_reason(
        &only_reads(config).await,
        &["not valid for name", "NotValidForName"],
        &["pa55w0rd"],
    );
}

#[tokio::test]
async fn a_server_with_another_protocol_fails_at_once() {
    let (redis, certificates) = redis_with(&[]).await;
    only_reads(config_at(format!("redis://{}", redis.address()))).await;
    let plain = Redis::start().await;
    let url = format!("rediss://{}?{}", plain.address(), certificates.query());
    only_reads(config_at(url)).await;
}

#[test]
fn invalid_certificate_files_are_refused_at_construction() {
    let certificates = Certificates::make_all();
    let path = |file: &str| certificates.path(file).to_str().unwrap().to_owned();
    fs::write(certificates.path("broken.pem"), "no certificate").unwrap();
    let (ca, client, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let broken = path("broken.pem");
    for query in [
        "ca=/nowhere/ca.pem".to_owned(),
        format!("ca={broken}"),
        format!("ca={ca}&cert={client}"),
        format!("ca={ca}&key={key}"),
        format!("ca={ca}&cert={client}&key=/nowhere/key"),
        format!("ca={ca}&cert={broken}&key={key}"),
        format!("ca={ca}&cert={client}&key={broken}"),
    ] {
        for scheme in ["rediss", "rediss+sentinel", "rediss+cluster"] {
            let end = if scheme.ends_with("sentinel") {
                "/service"
            } else {
                ""
            };
            let url = format!("{scheme}://:pa55w0rd@127.0.0.1:1{end}?{query}");
            let refused = RedisCache::new(RedisConfig::new(url));
            let Err(refused) = refused else {
                panic!("accepted: {scheme} with {query}");
            };
            let reason = reason(&refused);
            assert_reason(&reason, &["redis url"], &["pa55w0rd"]);
            if query.contains("nowhere") {
                assert_reason(&reason, &["no such file"], &[]);
            }
        }
    }
}

/// People name an authority of their own in `SSL_CERT_FILE` in a container.
#[tokio::test]
async fn the_system_root_certificates_are_trusted() {
    let args = ["--tls-auth-clients", "no"];
    let (redis, certificates) = redis_with(&args).await;
    let url = format!("rediss://{}", redis.address());
    let ca = certificates.path("ca.pem").to_str().unwrap().to_owned();
    let args = [
        "--storage",
        "memory://",
        "--redis",
        &url,
        "--redis-timeout",
        "5s",
    ];
    let registry = Registry::start(&args, &[("SSL_CERT_FILE".to_owned(), ca)]).await;
    let (http, image) = (Http::new(&registry), Image::new(1));
    http.push("a/b", "latest", &image).await;
    http.pulls("a/b", "latest", &image).await;
    assert_ne!(keys(&redis, 0, "blobs::*"), [""; 0], "{:?}", registry.log());
}
