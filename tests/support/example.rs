//! Finds the programs of this workspace that tests start.

use std::env;
use std::path::PathBuf;

/// Returns the path of an example of the library.
///
/// Cargo tells a test where the binaries of its own package are, but not where examples and other
/// packages' binaries are. They are beside the folder of the test's own binary.
///
/// # Panics
/// If the program is missing.
pub fn example(name: &str) -> PathBuf {
    program(&["examples", name])
}

/// Returns the path of a binary of a package of the workspace.
///
/// # Panics
/// If the program is missing.
pub fn binary(name: &str) -> PathBuf {
    program(&[name])
}

fn program(path: &[&str]) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    // The test's own path is `target/debug/deps/name`.
    let folder = test.ancestors().nth(2).expect("the folder of the profile");
    let program = path
        .iter()
        .fold(folder.to_owned(), |at, part| at.join(part));
    assert!(
        program.is_file(),
        "{} is missing; to build it: cargo test --workspace --all-features --no-run",
        program.display()
    );
    program
}
