//! Finds the programs of this workspace that tests start.

use std::env;
use std::path::PathBuf;

/// Returns the path of an example of the library.
///
/// Cargo tells a test where the binaries of its own package are, but not where the examples are.
/// They are in a folder beside the folder of the test's own binary.
///
/// # Panics
/// If the program is missing.
pub fn example(name: &str) -> PathBuf {
    program(&["examples", name], "cargo build --examples")
}

/// Returns the path of a binary of another package of the workspace.
///
/// # Panics
/// If the program is missing.
pub fn binary(package: &str, name: &str) -> PathBuf {
    program(&[name], &format!("cargo build -p {package}"))
}

fn program(path: &[&str], build: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    // The test's own path is `target/debug/deps/name`.
    let folder = test.ancestors().nth(2).expect("the folder of the profile");
    let program = path
        .iter()
        .fold(folder.to_owned(), |at, part| at.join(part));
    assert!(
        program.is_file(),
        "{} is missing: `cargo test --test NAME` does not build it; run `{build}` first",
        program.display()
    );
    program
}
