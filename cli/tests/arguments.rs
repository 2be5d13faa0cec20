//! Tests the arguments of the command as a process, without any server.

use test_support::command::run;
use test_support::nodes::digest;

#[tokio::test]
async fn an_invalid_argument_is_an_error() {
    let good = format!("a/b@{}", digest(0));
    for (subject, words) in [
        ("a/b", "an @ between them"),
        ("a/b@sha256:12", "invalid"),
        ("A/B@sha256:12", "invalid"),
        ("@", "invalid"),
        ("", "an @ between them"),
    ] {
        run(&["stat", subject]).await.refused(&[words]);
    }
    run(&["stat", &good])
        .await
        .refused(&["no Redis is given", "--redis", "LAYERCACHE_REDIS_URL"]);
    let redis = ["stat", &good, "--redis", "redis://127.0.0.1"];
    run(&redis)
        .await
        .refused(&["no storage is given", "LAYERCACHE_STORAGE"]);
    for (storage, words) in [
        ("/no/such/folder", "cannot open the folder /no/such/folder"),
        ("file://relative/folder", "three slashes"),
        ("ftp://host/x", "the schemes are s3, gs, az and file"),
        ("s3://", ""),
    ] {
        let args = [&redis[..], &["--storage", storage]].concat();
        run(&args).await.refused(&[words]);
    }
    for (option, value, words) in [
        ("--layout", "x", "is not a layout"),
        ("--layout", "x/{what}", "`{what}` is unknown"),
        ("--root", "a//b", "is not a valid path"),
        ("--redis-timeout", "1h", "the unit `h` is unknown"),
    ] {
        let args = [&redis[..], &["--storage", ".", option, value]].concat();
        run(&args).await.refused(&[words]);
    }
    run(&["check"])
        .await
        .refused(&["there is nothing to check"]);
    run(&[
        "warm",
        "--prefix",
        "a//b",
        "--redis",
        "redis://127.0.0.1",
        "--storage",
        ".",
    ])
    .await
    .refused(&["--prefix", "path"]);
    run(&["watch"]).await.refused(&["URL"]);
    run(&["watch", "https://a"]).await.refused(&["http"]);
    run(&["nonsense"]).await.refused(&["nonsense"]);
    let (help, version) = (
        run(&["--help"]).await.expect(0),
        run(&["--version"]).await.expect(0),
    );
    help.has(&["Exit codes:", "stat", "warm", "purge", "watch", "check"]);
    version.has(&["layercache 0"]);
}
