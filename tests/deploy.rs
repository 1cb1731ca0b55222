//! What `deploy/` holds agrees with the program.

use std::{fs, path::Path, process::Command};

#[test]
fn the_definitions_are_the_programs_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(["schema", "crds"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds.yaml");
    let written = fs::read_to_string(file).unwrap();
    let (comment, definitions) = written.split_once('\n').unwrap();
    assert!(comment.starts_with('#'), "{comment}");
    assert!(
        definitions == printed,
        "deploy/crds.yaml is stale: `make crds` writes it anew"
    );
}
