//! What the environment decides: where built programs are kept, which SPIRE runs, and whether a testbed's directory
//! survives.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;

/// The directory that keeps built programs between runs.
pub(crate) fn cache_directory() -> anyhow::Result<PathBuf> {
    if let Some(directory) = set("TRUSTWEAVE_TESTBED_CACHE") {
        return Ok(directory.into());
    }
    if let Some(directory) = set("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(directory).join("trustweave-testbed"));
    }
    let home = set("HOME").context(
        "no place for built programs: set TRUSTWEAVE_TESTBED_CACHE, XDG_CACHE_HOME or HOME",
    )?;
    Ok(PathBuf::from(home).join(".cache/trustweave-testbed"))
}

/// Whether testbed directories stay behind for a look at their logs (`TRUSTWEAVE_TESTBED_KEEP`).
pub(crate) fn keep_directories() -> bool {
    set("TRUSTWEAVE_TESTBED_KEEP").is_some()
}

/// The version of SPIRE for clusters that ask for none (`TRUSTWEAVE_TESTBED_SPIRE`).
pub(crate) fn spire_version() -> Option<OsString> {
    set("TRUSTWEAVE_TESTBED_SPIRE")
}

/// Whether a program can be found on the search path.
pub(crate) fn on_search_path(program: &str) -> bool {
    set("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    })
}

fn set(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}
