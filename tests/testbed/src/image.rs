//! Images for the nodes of a cluster, from programs on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

pub use trustweave_packaging::{Architecture, Image, Tree};

/// Adds a program, and what it needs to run if it is linked dynamically: its interpreter and shared libraries, where
/// they lie on this machine.
pub fn with_program(tree: Tree, path: &str, program: &Path) -> anyhow::Result<Tree> {
    let tree = tree.program(path, program);
    let libraries = shared_libraries(program)?;
    Ok(libraries
        .iter()
        .fold(tree, |tree, library| tree.program(library, library)))
}

/// The paths of the interpreter and the shared libraries of a program; a static one has none.
fn shared_libraries(program: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if complaint.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    anyhow::ensure!(
        output.status.success() && !text.contains("not found"),
        "the libraries of {} are not known: {complaint}{text}",
        program.display()
    );
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::shared_libraries;

    #[test]
    fn the_libraries_of_a_program_are_found() {
        let own = std::env::current_exe().unwrap();
        let libraries = shared_libraries(&own).unwrap();
        for part in ["/libc.so.6", "/ld-linux-"] {
            assert!(
                libraries.iter().any(|library| library.contains(part)),
                "{libraries:?}"
            );
        }
        assert!(
            libraries.iter().all(|library| Path::new(library).is_file()),
            "{libraries:?}"
        );
        let error = shared_libraries(Path::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
