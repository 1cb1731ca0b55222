//! `trustweave manual`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Answer, Cli, output};

/// Write the manual pages
///
/// One page for each verb, such as `trustweave-diff.1`, as packages install them in
/// `/usr/share/man/man1`. Without a directory the first page goes to standard output:
/// `man -l <(trustweave manual)`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the pages are written; it is made if it is not there
    directory: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let command = Cli::command();
        let Some(directory) = self.directory else {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            output::data(&String::from_utf8_lossy(&page))?;
            return Ok(Answer::Yes);
        };
        fs::create_dir_all(&directory)
            .and_then(|()| clap_mangen::generate_to(command, &directory))
            .with_context(|| format!("write to `{}`", directory.display()))?;
        Ok(Answer::Yes)
    }
}
