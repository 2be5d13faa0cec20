//! Tests the settings as an application uses them: from its environment and from a file.

use layercache::{CacheStatus, CachedStore, Settings};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// This process cannot change its environment safely, so the test runs itself again.
#[test]
fn the_environment_of_the_process_is_read() {
    if std::env::var_os("IS_CHILD").is_some() {
        match Settings::from_env() {
            Ok(settings) => println!("settings: {settings:?}"),
            Err(error) => println!("error: {error}"),
        }
        return;
    }
    let said = |variables: &[(&str, &str)]| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "settings::the_environment_of_the_process_is_read",
                "--nocapture",
            ])
            .env_clear()
            .env("IS_CHILD", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let url = ("LAYERCACHE_REDIS_URL", "redis://:s3cret@host");
    let settings = said(&[url, ("LAYERCACHE_REDIS_TIMEOUT", "77ms")]);
    assert!(settings.contains("timeout: 77ms"), "{settings}");
    assert!(!settings.contains("s3cret"), "{settings}");
    let error = said(&[url, ("LAYERCACHE_REDIS_TIMEOUT", "77")]);
    assert!(
        error.contains("error: LAYERCACHE_REDIS_TIMEOUT: `77`"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_store_has_the_settings_of_a_file() {
    let file = r#"{ "layout": "oci-blobs/{digest}", "memory": { "ttl": "1min" } }"#;
    let settings: Settings = serde_json::from_str(file).unwrap();
    let builder = CachedStore::builder(InMemory::new()).settings(settings);
    let store = builder.build().unwrap();
    let path = Path::from(format!("oci-blobs/sha256:{}", "ab".repeat(32)));
    store.put(&path, "content".into()).await.unwrap();
    for expected in [CacheStatus::Miss, CacheStatus::Memory] {
        let options = GetOptions::new().with_head(true);
        let result = store.get_opts(&path, options).await.unwrap();
        assert_eq!(result.extensions.get(), Some(&expected));
    }
}

#[tokio::test]
async fn a_time_beyond_its_bounds_is_refused_when_the_store_is_built() {
    let file = r#"{ "redis": { "url": "redis://:s3cret@host", "timeout": "1h" } }"#;
    let settings: Settings = serde_json::from_str(file).unwrap();
    let builder = CachedStore::builder(InMemory::new()).settings(settings);
    let refused = builder.build().unwrap_err().to_string();
    assert!(
        refused.contains("redis timeout") && !refused.contains("s3cret"),
        "{refused}"
    );
}

/// One variable in the environment of all programs must mean the same to each of them.
#[test]
fn the_command_and_the_example_have_the_librarys_variables() {
    let guide = include_str!("../../src/guide/settings.md");
    let mut names = BTreeSet::new();
    for folder in ["cli/src", "examples/registry/src"] {
        let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
        for file in fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(file).unwrap();
            let found = text.split("env = \"").skip(1);
            names.extend(found.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let sections = ["LAYOUT", "ROOT", "REDIS", "MEMORY", "LIMITS", "VERIFIER"];
    names.retain(|name| {
        let section = name.trim_start_matches("LAYERCACHE_").split('_').next();
        sections.contains(&section.unwrap())
    });
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        assert!(guide.contains(&format!("| `{name}` |")), "{name}");
    }
}
