//! `trustweave bundle`: one file per verb.

mod show;
mod source;

use clap::{Args, Subcommand};

use super::Answer;

/// Look at published trust bundles
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(show::Arguments),
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        match self.verb {
            Verb::Show(arguments) => arguments.run(),
        }
    }
}
