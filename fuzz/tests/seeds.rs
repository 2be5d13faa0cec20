//! Whether each target accepts its seeds. It runs without a fuzzer, so that every test run repeats
//! the inputs that once showed a bug.

use layercache_fuzz::TARGETS;
use std::fs;
use std::path::Path;

#[test]
fn every_target_accepts_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in TARGETS {
        let files =
            fs::read_dir(seeds.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
