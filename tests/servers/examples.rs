//! Runs the examples as a reader would, and checks what they print.

use test_support as support;

use std::process::Command;
use support::example::example;
use support::minio::Minio;
use support::redis::Redis;

/// Runs an example without any environment variable that could change its behaviour.
async fn run(name: &str, env: &[(String, String)]) -> std::process::Output {
    let mut command = Command::new(example(name));
    command.env_clear().envs(env.iter().cloned());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the example ends")
        .expect("the example starts")
}

/// Returns what an example prints, and checks that it succeeds.
async fn prints(name: &str, env: &[(String, String)]) -> String {
    let output = run(name, env).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} failed: {err}\n{out}");
    assert_eq!(err, "", "{name} wrote to standard error");
    out
}

/// Returns the lines that contain `text`.
fn lines<'a>(out: &'a str, text: &str) -> Vec<&'a str> {
    out.lines().filter(|line| line.contains(text)).collect()
}

#[track_caller]
fn each_contains(lines: &[&str], expected: &[&str]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "no `{expected}` in `{line}`");
    }
}

#[tokio::test]
async fn wrap_filesystem_asks_the_folder_once() {
    let out = prints("wrap_filesystem", &[]).await;
    each_contains(
        &lines(&out, "7 bytes in"),
        &["says Miss", "says Memory", "says Memory"],
    );
    let linked = ["false  None, says Miss", "true   Some(7), says Memory"];
    each_contains(&lines(&out, "linked:"), &linked);
    assert!(out.ends_with("head: not found\n"), "{out}");
}

#[tokio::test]
async fn wrap_s3_names_the_missing_variables() {
    let output = run("wrap_s3", &[]).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for name in [
        "AWS_BUCKET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "REDIS_URL",
    ] {
        assert!(err.contains(name), "{err}");
    }
}

#[tokio::test]
async fn wrap_s3_asks_the_bucket_once() {
    let minio = Minio::shared().await;
    let mut env = minio.env(&minio.bucket().await);
    let alone = prints("wrap_s3", &env).await;
    each_contains(
        &lines(&alone, "this node  "),
        &["says Miss", "says Memory", "says Memory"],
    );

    let redis = Redis::start().await;
    env.push(("REDIS_URL".to_owned(), redis.url()));
    let shared = prints("wrap_s3", &env).await;
    each_contains(
        &lines(&shared, "this node  "),
        &["says Miss", "says Memory", "says Memory"],
    );
    each_contains(
        &lines(&shared, "another node  "),
        &["says Redis", "says Memory", "says Memory"],
    );
    assert!(shared.contains("gone on the other: true"), "{shared}");
}

#[tokio::test]
async fn stack_counts_the_reads_that_reach_the_store() {
    let out = prints("stack", &[]).await;
    let counts = lines(&out, "Store(store)");
    for (order, reads) in [
        ("CachedStore(store)", "1"),
        ("CachedStore(PrefixStore(store))", "1"),
        ("PrefixStore(CachedStore(store))", "10"),
        (
            "PrefixStore(CachedStore(store)), with the prefix in its layout",
            "1",
        ),
    ] {
        let line = format!("{reads:>4}  {order}");
        assert!(out.lines().any(|each| each == line), "no `{line}` in {out}");
    }
    let slow = |order: &str| {
        counts
            .iter()
            .find(|line| line.contains(order))
            .map(|line| line.contains("ms "))
    };
    assert_eq!(slow("limits callers"), Some(true), "{out}");
    assert_eq!(slow("limits the store"), Some(false), "{out}");
}

#[tokio::test]
async fn custom_layout_answers_the_second_batch_from_memory() {
    let out = prints("custom_layout", &[]).await;
    each_contains(
        &lines(&out, "octo/models/"),
        &["a blob of octo/models", "nothing to the cache"],
    );
    each_contains(
        &lines(&out, "download 7 bytes"),
        &["says Miss", "says Memory"],
    );
    each_contains(&lines(&out, "upload"), &["says Miss", "says Miss"]);
}

#[tokio::test]
async fn own_backend_asks_the_database_once() {
    let out = prints("own_backend", &[]).await;
    each_contains(
        &lines(&out, "says"),
        &["says Miss", "says Memory", "None, says Miss"],
    );
    // The database gets a query before and after the link, and none in between.
    assert_eq!(lines(&out, "database: where is it?").len(), 2, "{out}");
}
