//! Tests `layercache audit` as people and scripts run it.

use super::{as_go, command, store_blob, store_link, text};
use object_store::local::LocalFileSystem;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use test_support::nodes::{LENGTH, SET, digest, hash, name};
use test_support::redis::Redis;

struct Place {
    folder: tempfile::TempDir,
    redis: Redis,
}

impl Place {
    /// Caches one blob that is in the store, and this many blobs that are not.
    async fn with(stale: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start().await;
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        store_blob(&store, &digest(0)).await;
        store_link(&store, &name(), &digest(0)).await;
        let commands = (0..=stale).flat_map(|i| as_go(&name(), &digest(i), LENGTH));
        let commands: Vec<_> = commands.collect();
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        redis.cli_lines(&commands);
        Self { folder, redis }
    }

    fn args(&self) -> [String; 4] {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        let url = self.redis.url();
        ["--storage".to_owned(), folder, "--redis".to_owned(), url]
    }

    fn run(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let args = self.args();
        let args: Vec<_> = args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let output = command(&args);
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[tokio::test]
async fn findings_are_printed_and_set_the_exit_code() {
    let place = Place::with(1).await;
    let (code, output, notes) = place.run(&[]);
    assert_eq!(code, Some(1));
    let digest = digest(1);
    let stale = format!(
        "stale-membership\t{SET}\t{digest}\tthe repository has no link to this blob\tleft\n"
    );
    assert!(output.contains(&stale), "{output}");
    let gone = format!(
        "stale-meta\t{}\t\tthere is no such blob\tleft\n",
        hash(&digest)
    );
    assert!(output.contains(&gone), "{output}");
    assert!(output.ends_with("findings\t2\n"), "{output}");
    assert!(notes.contains("--fix"), "{notes}");

    let (code, output, _) = place.run(&["--fix"]);
    assert_eq!(code, Some(1));
    assert!(
        output.contains(&stale.replace("left", "removed")),
        "{output}"
    );
    assert!(output.ends_with("findings\t2\nremoved\t2\n"), "{output}");
    let (code, output, notes) = place.run(&["--fix"]);
    assert_eq!((code, notes.as_str()), (Some(0), ""));
    assert!(output.ends_with("findings\t0\nremoved\t0\n"), "{output}");
}

#[tokio::test]
async fn json_has_the_same_findings() {
    let place = Place::with(1).await;
    let (code, output, _) = place.run(&["--json", "--repository", "library/*"]);
    assert_eq!(code, Some(1));
    let documents: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [.., summary] = documents.as_slice() else {
        panic!("{output}");
    };
    assert_eq!(summary["summary"]["findings"], 2);
    assert_eq!(summary["summary"]["by_name"]["stale-meta"], 1);
    let is_stale = |it: &&Value| it["finding"] == "stale-membership";
    let stale = documents.iter().find(is_stale).unwrap();
    assert_eq!(stale["repository"], name().as_str());
    assert_eq!(stale["digest"], digest(1).to_string());
    assert_eq!(
        (&stale["key"], &stale["fate"]),
        (&SET.into(), &"left".into())
    );

    let (code, output, _) = place.run(&["--json", "--repository", "team/*"]);
    assert_eq!((code, output.lines().count()), (Some(0), 1));
}

#[tokio::test]
async fn errors_are_explained() {
    let place = Place::with(1).await;
    for (args, words) in [
        (&["--sample", "200%"][..], "percentage"),
        (&["--resume-after", "nonsense"], "position"),
        (&["--layout", "nonsense"], "not a layout"),
    ] {
        let (code, _, notes) = place.run(args);
        assert_eq!(code, Some(2), "{notes}");
        assert!(notes.contains(words), "{notes}");
    }
    let folder = place.folder.path().to_str().unwrap();
    let closed_port = "redis://:s3cret@127.0.0.1:1";
    let output = command(&["--storage", folder, "--redis", closed_port]);
    let notes = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{notes}");
    assert!(
        notes.contains("redis://127.0.0.1:1") && !notes.contains("s3cret"),
        "{notes}"
    );
}

/// After Ctrl-C the command says how to resume. Both halves together have checked everything.
#[tokio::test]
async fn an_interrupted_audit_is_resumed() {
    const STALE: u32 = 4000;
    let place = Place::with(STALE).await;
    let mut child = Command::new(test_support::command::program())
        .arg("audit")
        .args(place.args())
        .args(["--rate", "2000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut first = vec![lines.next().unwrap().unwrap()];
    let kill = ["-c", "kill -s INT \"$0\"", &child.id().to_string()];
    assert!(Command::new("sh").args(kill).status().unwrap().success());
    first.extend(lines.map(Result::unwrap));
    let mut notes = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut notes)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{notes}");
    let (_, position) = notes.trim().rsplit_once("--resume-after ").unwrap();
    assert!(first.len() < 4000, "{} lines", first.len());

    let (code, output, notes) = place.run(&["--resume-after", position, "--rate", "1000000"]);
    assert_eq!(code, Some(1), "{notes}");
    let all = first.iter().map(String::as_str).chain(output.lines());
    let mut all: Vec<_> = all
        .filter(|line| line.starts_with("stale-") && line.contains("sha256:"))
        .collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2 * STALE as usize);
    assert!(
        count < all.len() + 1100,
        "{} were repeated",
        count - all.len()
    );
}
