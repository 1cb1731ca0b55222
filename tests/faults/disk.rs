//! A full disk under the agent's mirror.

use std::{
    ffi::OsStr,
    fs::File,
    io::{ErrorKind, Write as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use super::{ONE, condition, matrix::Matrix, remote::UNREADABLE, subject::Subject};

/// Mounts a disk of 16 MiB at the first argument, and becomes the others.
const MOUNT: &str = r#"mkdir -p "$0" && mount -t tmpfs -o size=16m tmpfs "$0" && exec "$@""#;

/// What may happen to the agent's disk.
pub(crate) async fn faults(subject: &mut Subject, matrix: &mut Matrix) {
    subject.kill();
    let state = subject.state();
    // A mount namespace goes away with the agent. Without root, it needs a user namespace around it.
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let unshare: &[&str] = if root {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let mut command = vec![OsStr::new("/usr/bin/unshare")];
    command.extend(unshare.iter().map(OsStr::new));
    command.extend(["sh", "-c", MOUNT].map(OsStr::new));
    command.push(state.as_os_str());
    subject.federation.start_agent_by(ONE, &command).unwrap();
    subject.settle().await;

    let fault = ("agent", "disk full under its mirror");
    let row = subject.struck(fault, 2, async |subject| {
        let before = subject.logged(UNREADABLE);
        let filler = fill(subject);
        subject.change_all().await;
        subject.until_logged(UNREADABLE, before).await;
        // It says so, and what was in force stays so.
        subject
            .until("the full disk to be reported", async || {
                let status = subject.git_sync().await?;
                Ok((condition(&status, "Fetched")["status"] == "False").then_some(()))
            })
            .await;
        assert_eq!(subject.relationships().await.unwrap().len(), 1);
        std::fs::remove_file(filler).unwrap();
        1
    });
    matrix.add(row.await);
    subject.restart();
}

/// Fills the agent's disk; the file that does.
fn fill(subject: &Subject) -> PathBuf {
    let id = subject.federation.agent(ONE).unwrap().id();
    // The disk, as the agent's namespace has it.
    let state = subject.state();
    let state = state.strip_prefix("/").unwrap();
    let seen = PathBuf::from(format!("/proc/{id}/root")).join(state);
    let filler = seen.join("filler");
    let mut file = File::create(&filler).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    filler
}
