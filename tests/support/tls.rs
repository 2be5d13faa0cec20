//! Makes certificates for one test, for servers on loopback and their clients.

use super::tools::require;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// An authority, and a server's and a client's certificates from it, in a folder that is deleted
/// with this value.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

/// The arguments of `openssl req` that make a certificate and its key, without a password.
const NEW: &[&str] = &[
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
];

/// Installs a provider of cryptography in this process, as an application does that uses TLS.
pub fn choose_cryptography() {
    // An error means that another test has installed one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Certificates {
    /// Makes the certificates of a new authority that no program trusts yet.
    pub fn make_all() -> Self {
        choose_cryptography();
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let made = Self { folder };
        made.make(
            "ca",
            &[
                "basicConstraints=critical,CA:TRUE",
                "keyUsage=critical,keyCertSign",
            ],
            &[],
        );
        for name in ["server", "client"] {
            let (ca, key) = (made.path("ca.pem"), made.path("ca.key"));
            made.make(
                name,
                &[
                    "basicConstraints=critical,CA:FALSE",
                    "subjectAltName=IP:127.0.0.1,DNS:localhost",
                ],
                &[Path::new("-CA"), &ca, Path::new("-CAkey"), &key],
            );
        }
        made
    }

    fn make(&self, name: &str, extensions: &[&str], issuer: &[&Path]) {
        let mut command = Command::new(require("openssl"));
        command.args(NEW).args(issuer);
        for (option, file) in [("-keyout", "key"), ("-out", "pem")] {
            command
                .arg(option)
                .arg(self.path(&format!("{name}.{file}")));
        }
        // The random number keeps two authorities apart: with one name they would look like one
        // authority that has changed its key.
        let common_name = format!("layercache test {name} {}", fastrand::u32(..));
        command.args(["-subj", &format!("/CN={common_name}")]);
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        let output = command.output().expect("openssl");
        assert!(output.status.success(), "{command:?}: {output:?}");
    }

    /// Returns the path of `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        let path = self.path(file);
        path.to_str().expect("a path of letters").to_owned()
    }

    /// Returns the arguments of a server, which then asks a client for a certificate.
    pub fn server_args(&self) -> [String; 6] {
        [
            ("--tls-cert-file", "server.pem"),
            ("--tls-key-file", "server.key"),
            ("--tls-ca-cert-file", "ca.pem"),
        ]
        .map(|(option, file)| [option.to_owned(), self.text(file)])
        .concat()
        .try_into()
        .expect("three pairs")
    }

    /// Returns the arguments of [`Self::server_args`] as lines of a configuration.
    pub fn server_lines(&self) -> String {
        let args = self.server_args();
        let (pairs, _) = args.as_chunks::<2>();
        let line = |[option, file]: &[String; 2]| {
            let option = option.trim_start_matches('-');
            format!("{option} {file}\n")
        };
        pairs.iter().map(line).collect()
    }

    /// Returns the arguments of `redis-cli`.
    pub fn cli_args(&self) -> Vec<String> {
        let mut args = vec!["--tls".to_owned()];
        for (option, file) in [
            ("--cacert", "ca.pem"),
            ("--cert", "client.pem"),
            ("--key", "client.key"),
        ] {
            args.extend([option.to_owned(), self.text(file)]);
        }
        args
    }

    /// Returns the part of an address that names only the authority.
    pub fn authority(&self) -> String {
        format!("ca={}", self.text("ca.pem"))
    }

    /// Returns the part of an address that names the authority and a client's certificate.
    pub fn query(&self) -> String {
        let (cert, key) = (self.text("client.pem"), self.text("client.key"));
        format!("{}&cert={cert}&key={key}", self.authority())
    }
}
