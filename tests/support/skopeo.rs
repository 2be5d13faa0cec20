//! Runs a real client: skopeo.

use super::tools::require;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `skopeo --insecure-policy` with these arguments.
///
/// # Panics
/// If it fails, with its output.
pub fn skopeo(args: &[&str]) -> Output {
    let output = Command::new(require("skopeo"))
        .arg("--insecure-policy")
        .args(args)
        .output()
        .expect("skopeo");
    assert!(
        output.status.success(),
        "skopeo {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Pushes an OCI image layout to `host:port/name:tag`, byte for byte.
pub fn push(layout: &Path, reference: &str) {
    copy(&oci(layout), &format!("docker://{reference}"));
}

/// Pulls `host:port/name:tag` (or `@sha256:…`) into a new OCI image layout.
pub fn pull(reference: &str, layout: &Path) {
    copy(&format!("docker://{reference}"), &oci(layout));
}

/// Copies from one address to another, such as from registry to registry.
pub fn copy(from: &str, to: &str) {
    // Without `--preserve-digests` skopeo would compress the layers.
    let options = [
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    let args: Vec<_> = ["copy", "-q"]
        .into_iter()
        .chain(options)
        .chain([from, to])
        .collect();
    skopeo(&args);
}

fn oci(layout: &Path) -> String {
    format!("oci:{}:latest", layout.display())
}
