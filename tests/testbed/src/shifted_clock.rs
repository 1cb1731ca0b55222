//! A wall clock that a test moves, for programs that are started with its environment.
//!
//! No namespace of the kernel has a wall clock of its own, and the machine's is everybody's. So a library
//! is put between a program and the C library's clock. Clocks that measure time go on as they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::Testbed;

/// The library and the file that it reads.
pub struct ShiftedClock {
    library: PathBuf,
    shift: PathBuf,
}

impl ShiftedClock {
    /// Builds the library, with the C compiler that Rust links with; the clock is right at first.
    pub async fn build(testbed: &Testbed) -> anyhow::Result<Self> {
        let file = |name| testbed.directory().join(name);
        let (source, library, shift) = (file("clock.c"), file("clock.so"), file("clock-shift"));
        std::fs::write(&source, include_str!("shifted_clock.c")).context("write the library")?;
        let arguments = ["-shared", "-fPIC", "-O1", "-o"].map(Path::new);
        let files = [&library, &source].map(PathBuf::as_path);
        let arguments = arguments.into_iter().chain(files);
        let arguments = ["cc"].map(Path::new).into_iter().chain(arguments);
        testbed.run(Path::new("/usr/bin/env"), arguments).await?;
        let clock = Self { library, shift };
        clock.right()?;
        Ok(clock)
    }

    /// What has a program see this clock.
    pub fn environment(&self) -> [(String, String); 2] {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("TRUSTWEAVE_TESTBED_CLOCK".to_owned(), text(&self.shift)),
        ]
    }

    /// Moves it so far ahead of the machine's.
    pub fn ahead(&self, by: Duration) -> anyhow::Result<()> {
        self.set(&by.as_secs().to_string())
    }

    /// Moves it so far behind the machine's.
    pub fn behind(&self, by: Duration) -> anyhow::Result<()> {
        self.set(&format!("-{}", by.as_secs()))
    }

    /// Sets it right.
    pub fn right(&self) -> anyhow::Result<()> {
        self.set("0")
    }

    fn set(&self, seconds: &str) -> anyhow::Result<()> {
        // In one step: a reader finds the one or the other.
        let unfinished = self.shift.with_extension("unfinished");
        std::fs::write(&unfinished, seconds).context("write the clock's shift")?;
        std::fs::rename(&unfinished, &self.shift).context("write the clock's shift")
    }
}
