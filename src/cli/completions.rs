//! `trustweave completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Answer, Cli, output};

/// Print the completion script of a shell
///
/// For bash: `source <(trustweave completions bash)`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "trustweave", &mut script);
        output::data(&String::from_utf8_lossy(&script))?;
        Ok(Answer::Yes)
    }
}
