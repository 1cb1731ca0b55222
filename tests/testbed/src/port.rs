//! Loopback ports for programs that must be told theirs.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

/// Below the range that the kernel takes the near end of outgoing connections from: a port found free there could
/// be lost again to any connection before its program listens.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// Ports handed out by this process, which may not listen yet.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nobody listens on and that this process has not handed out before.
///
/// Another process may still take it first, so who starts a program on it tries again on "address already in use".
pub(crate) fn free() -> anyhow::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..1000)
        .map(|_| {
            let offset = RandomState::new().build_hasher().finish() % u64::from(COUNT);
            FIRST + u16::try_from(offset).unwrap_or_default()
        })
        .find(|port| !taken.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .inspect(|port| {
            taken.insert(*port);
        })
        .context("no free port on 127.0.0.1")
}

/// Whether somebody else was faster to listen on a port that was free a moment ago.
pub(crate) fn was_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}")
        .to_lowercase()
        .contains("address already in use")
}
