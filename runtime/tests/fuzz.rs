//! The inputs that fuzzing has found, replayed: what the target `ws` checks holds for each of them.

use std::{fs, path::Path};

#[path = "../../fuzz/src/ws.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets reach it: there the file is a module of a library")]
mod check;

#[test]
fn seeds_and_corpus_of_the_fuzz_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let files = |of: &str| fs::read_dir(fuzz.join(of).join("ws")).into_iter().flatten();
    assert!(files("seeds").next().is_some(), "no seeds");
    for file in files("seeds").chain(files("corpus")) {
        let path = file.unwrap().path();
        // Says which one it was, should it fail.
        println!("{}", path.display());
        check::ws(&fs::read(path).unwrap());
    }
}
