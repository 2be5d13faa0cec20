//! Finds the programs that the tests run, and says how to get a missing one.

use std::env;
use std::path::PathBuf;

const APT: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("skopeo", "skopeo"),
    ("docker-registry", "docker-registry"),
    ("ab", "apache2-utils"),
    ("htpasswd", "apache2-utils"),
    ("openssl", "openssl"),
    ("promtool", "prometheus"),
    ("valgrind", "valgrind"),
];

/// Returns the path of a program.
///
/// # Panics
/// If it is missing, because a test that cannot run has not passed. The message says what to do.
pub fn require(program: &str) -> PathBuf {
    let places = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&places).map(|place| place.join(program));
    let found = given(program)
        .into_iter()
        .chain(on_path)
        .chain(built(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing; to install it: {}", remedy(program)))
}

/// Returns the path that the environment names: `LAYERCACHE_MINIO` for MinIO,
/// `LAYERCACHE_REDIS_6_2` for `redis-6.2`, and so on for any other program.
fn given(program: &str) -> Option<PathBuf> {
    let name = program.to_uppercase().replace(['-', '.'], "_");
    env::var_os(format!("LAYERCACHE_{name}")).map(PathBuf::from)
}

/// Returns the path where `tests/run.sh` puts what it builds or unpacks.
fn built(program: &str) -> Option<PathBuf> {
    let home = env::var_os("HOME")?;
    let folder = PathBuf::from(home).join(".cache/layercache/bin");
    Some(folder.join(program))
}

fn remedy(program: &str) -> String {
    match APT.iter().find(|(name, _)| *name == program) {
        Some((_, package)) => format!("apt-get install -y {package}   (or tests/run.sh --setup)"),
        None => "tests/run.sh --setup".to_owned(),
    }
}

/// Returns a number that the environment sets.
///
/// # Panics
/// If the value is not a number.
pub fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}
