//! This crate's examples.

use std::env;
use std::path::PathBuf;

/// Cargo tells a test where binaries are, but not where examples are: beside the folder of the
/// test's own.
///
/// # Panics
/// If it is missing.
pub fn example(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("the folder of the profile");
    let program = folder.join("examples").join(name);
    assert!(
        program.is_file(),
        "{} is missing: `cargo test --test NAME` does not build examples; run `cargo build --examples` first",
        program.display()
    );
    program
}
