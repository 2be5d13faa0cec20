//! Tests how commands end: with an error, by a signal, with a closed pipe. Also tests that they
//! print no secret.

use super::{Stage, command, output_of, run, run_with};
use std::process::Command;
use std::time::Duration;
use test_support::nodes::digest;
use test_support::redis::Redis;
use test_support::server::{Signal, free_port};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::sleep;

const SECRET: &str = "s3cret-of-a-user";

#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_an_error() {
    let stage = Stage::new().await;
    stage.push(&stage.node(), "a/b", 1).await;
    let subject = format!("a/b@{}", digest(0));
    let closed_port = format!("redis://:{SECRET}@127.0.0.1:{}", free_port());
    let locked = Redis::start_with(&["--requirepass", "pa55w0rd-of-redis"]).await;
    let wrong = format!("redis://:{SECRET}@{}", locked.address());
    for (url, word) in [(&closed_port, "refused"), (&wrong, "password")] {
        for command in [&["stat", &subject][..], &["warm"]] {
            let args = [command, &["--redis", url, "--storage", stage.path()]].concat();
            run(&args).await.refused(&[word, "help: "]).keeps(SECRET);
        }
        let purge = ["purge", "--yes", "--redis", url];
        run(&purge)
            .await
            .refused(&["cannot purge redis://127.0.0.1:", word])
            .keeps(SECRET);
        let check = ["check", "--redis", url];
        run(&check)
            .await
            .expect(1)
            .has(&["wrong\t", word])
            .keeps(SECRET);
    }
    // The right password works.
    run(&["check", "--redis", &locked.url()])
        .await
        .expect(0)
        .keeps("pa55w0rd-of-redis");
}

#[tokio::test]
async fn no_command_prints_a_secret() {
    let subject = format!("a/b@{}", digest(0));
    for redis in [
        format!("redis://:{SECRET}@127.0.0.1:port"),
        format!("http://:{SECRET}@a"),
        format!("redis://127.0.0.1?password={SECRET}"),
        format!("redis+sentinel://:{SECRET}@a,b"),
        SECRET.to_owned(),
    ] {
        for command in [
            &["stat", &subject][..],
            &["warm"],
            &["check"],
            &["purge", "--yes"],
        ] {
            let env = [("LAYERCACHE_REDIS_URL".to_owned(), redis.clone())];
            let storage: &[&str] = if command[0] == "purge" {
                &[]
            } else {
                &["--storage", "."]
            };
            let output = run_with(&[command, storage].concat(), &env).await;
            output
                .refused(&["a setting of the Redis is not valid"])
                .keeps(SECRET);
        }
    }
    for storage in [
        format!("s3://key:{SECRET}@bucket"),
        format!("az://container?sig={SECRET}"),
        format!("{SECRET}://bucket"),
    ] {
        let args = ["check", "--storage", &storage];
        run(&args).await.refused(&["--storage"]).keeps(SECRET);
    }
    for command in ["check", "stat", "warm", "purge"] {
        let env = ["LAYERCACHE_REDIS_URL", "LAYERCACHE_STORAGE"];
        let env = env.map(|name| (name.to_owned(), SECRET.to_owned()));
        run_with(&[command, "--help"], &env)
            .await
            .expect(0)
            .keeps(SECRET);
    }
}

#[tokio::test]
async fn a_closed_output_is_not_an_error() {
    let stage = Stage::new().await;
    let url = stage.redis.url();
    let mut child = command(&["check", "--redis", &url, "--storage", stage.path()])
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    output_of(child).await.expect(0);

    // A command that runs for ever ends when the reader of its output is gone.
    let args = ["watch", "--interval", "50ms", "127.0.0.1:1"];
    let mut child = command(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .starts_with("time\t")
    );
    drop(lines);
    output_of(child).await.expect(0);
}

fn interrupt(child: &tokio::process::Child) {
    let id = child.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn a_command_says_where_ctrl_c_has_stopped_it() {
    let stage = Stage::new().await;
    stage.push(&stage.node(), "a/b", 1).await;
    let url = stage.redis.url();
    stage.redis.signal(Signal::Stop);
    let common = [
        "--redis",
        &url,
        "--storage",
        stage.path(),
        "--redis-timeout",
        "30s",
    ];
    for (args, words) in [
        (&["warm"][..], "repeat the command"),
        (
            &["warm", "--resume-after", "docker/a"],
            "--resume-after 'docker/a'",
        ),
        (
            &["stat", &format!("a/b@{}", digest(0))],
            "there is no answer yet",
        ),
        (&["check"], "the check is not complete"),
    ] {
        let child = command(&[args, &common].concat()).spawn().unwrap();
        sleep(Duration::from_millis(500)).await;
        interrupt(&child);
        let output = output_of(child).await.expect(130);
        assert!(
            output.err.contains("interrupted: ") && output.err.contains(words),
            "{output:#?}"
        );
    }
    stage.redis.signal(Signal::Cont);

    // `watch` ends only by a signal.
    let child = command(&["watch", "127.0.0.1:1"]).spawn().unwrap();
    sleep(Duration::from_millis(500)).await;
    interrupt(&child);
    output_of(child).await.expect(0);
}
