//! Writes small, valid, reproducible OCI images.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;

/// The digests of an image's parts, each as `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

impl Image {
    /// Returns every blob that a push sends as a blob: the layers and the configuration.
    pub fn blobs(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().chain([&self.config]).map(String::as_str)
    }
}

/// Writes an image of `layers` layers, of about `layer_bytes` bytes each, as an OCI image layout.
pub fn write_oci_layout(folder: &Path, layers: usize, layer_bytes: usize) -> Image {
    let seeds: Vec<_> = (0..layers as u64).collect();
    write_layers(folder, &seeds, layer_bytes)
}

/// Writes an image with one layer for each seed. Two images share the layers whose seed and size
/// are equal.
pub fn write_layers(folder: &Path, seeds: &[u64], layer_bytes: usize) -> Image {
    let layers: Vec<_> = seeds
        .iter()
        .map(|&seed| {
            put(
                folder,
                "tar",
                &tar(&format!("layer-{seed}"), &content(seed, layer_bytes)),
            )
        })
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = put_json(
        folder,
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }),
    );
    let mut manifest = put_json(
        folder,
        "application/vnd.oci.image.manifest.v1+json",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        }),
    );
    let image = Image {
        manifest: digest_of(&manifest),
        config: digest_of(&config),
        layers: layers.iter().map(digest_of).collect(),
    };
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    write(&folder.join("index.json"), index.to_string().as_bytes());
    write(
        &folder.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    image
}

/// Returns the digest of a blob's content as `sha256:…`.
pub fn sha256(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns bytes that look random and depend only on the seed (an xorshift generator).
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<_> = (0..length.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(length);
    bytes
}

/// Returns a tar archive of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut field =
        |at: usize, text: &str| header[at..][..text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0"); // mode
    field(108, "0000000\0"); // user
    field(116, "0000000\0"); // group
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0"); // modified
    field(148, "        "); // the sum is computed over blanks here
    field(156, "0"); // a file
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    let end = archive.len().next_multiple_of(512) + 1024;
    archive.resize(end, 0);
    archive
}

fn put_json(folder: &Path, media_type: &str, value: &Value) -> Value {
    put_blob(folder, media_type, value.to_string().as_bytes())
}

fn put(folder: &Path, kind: &str, content: &[u8]) -> Value {
    put_blob(
        folder,
        &format!("application/vnd.oci.image.layer.v1.{kind}"),
        content,
    )
}

/// Writes a blob and returns its descriptor.
fn put_blob(folder: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = sha256(content);
    write(
        &folder.join("blobs").join(digest.replace(':', "/")),
        content,
    );
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

fn digest_of(descriptor: &Value) -> String {
    descriptor["digest"].as_str().expect("a digest").to_owned()
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, content).expect("a file");
}
