//! libgit2's process-wide options: set once, independent of the machine's configuration.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use git2::ConfigLevel;

use super::Error;
use crate::model::bundle::Digest;

/// How long libgit2 may wait to connect, and for each answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes libgit2 independent of the machine's configuration, and gives it time limits.
#[expect(
    unsafe_code,
    reason = "libgit2's process-wide options are unsafe functions"
)]
pub(super) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let milliseconds = i32::try_from(SERVER_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
        let levels = [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG];
        // SAFETY: the options are plain process-wide variables that libgit2 reads without
        // synchronisation; `Once` runs this before the first repository or connection is made by
        // this crate, and nothing else in the process uses libgit2.
        let results = unsafe {
            [
                git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds),
                git2::opts::set_server_timeout_in_milliseconds(milliseconds),
                git2::opts::set_search_path(levels[0], ""),
                git2::opts::set_search_path(levels[1], ""),
                git2::opts::set_search_path(levels[2], ""),
            ]
        };
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "an option of libgit2 can't be set");
        }
    });
}

/// Trusts the certificate authorities in a file (PEM), for the whole process and until it ends, on
/// top of the system's. A file that was read before is not read into libgit2 again.
#[expect(
    unsafe_code,
    reason = "libgit2's process-wide options are unsafe functions"
)]
pub(super) fn trust(path: &Path) -> Result<(), Error> {
    static TRUSTED: Mutex<BTreeSet<Digest>> = Mutex::new(BTreeSet::new());
    let content = std::fs::read(path).map_err(|source| Error::File {
        path: path.display().to_string(),
        source,
    })?;
    // Held all the while: one authority is added at a time.
    let mut trusted = TRUSTED.lock().unwrap_or_else(PoisonError::into_inner);
    let digest = Digest::of(&content);
    if trusted.contains(&digest) {
        return Ok(());
    }
    // SAFETY: libgit2 adds the certificates to its OpenSSL context, whose store OpenSSL itself guards
    // against connections that are made at the same time.
    unsafe { git2::opts::set_ssl_cert_file(path) }.map_err(|_| Error::Authority {
        path: path.display().to_string(),
    })?;
    trusted.insert(digest);
    Ok(())
}
