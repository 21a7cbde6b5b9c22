//! The generated code in `src/wire/proto/` is what `proto/` says. `UPDATE_GOLDEN=1 cargo test --test proto` rewrites it.

use std::{fs, path::Path};

#[test]
fn generated_messages_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source_dir = root.join("proto");
    let mut sources: Vec<_> = fs::read_dir(&source_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    sources.sort();
    let descriptors = protox::compile(&sources, [&source_dir]).expect("proto/ compiles");

    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code for proto/");

    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let generated_dir = root.join("src/wire/proto");
    let mut compared = 0;
    for entry in fs::read_dir(out.path()).unwrap() {
        let entry = entry.unwrap();
        let fresh = fs::read_to_string(entry.path()).unwrap();
        let target = generated_dir.join(entry.file_name());
        if update {
            fs::write(&target, &fresh).unwrap();
        }
        let present = fs::read_to_string(&target).unwrap_or_default();
        assert!(
            present == fresh,
            "{} is stale: UPDATE_GOLDEN=1 cargo test --test proto",
            target.display()
        );
        compared += 1;
    }
    assert_eq!(compared, 10, "one file for each package of proto/");
}
