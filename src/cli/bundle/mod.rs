//! `trustweave bundle`: one file per verb.

mod allowed_signers;
mod distrust_file;
mod export;
mod import;
mod revoke;
mod show;
mod source;

use clap::{Args, Subcommand};

use super::Answer;

/// Look at published trust bundles, carry them, and take back keys
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(show::Arguments),
    Revoke(revoke::Revoke),
    Unrevoke(revoke::Unrevoke),
    AllowedSigners(allowed_signers::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        match self.verb {
            Verb::Show(arguments) => arguments.run(),
            Verb::Revoke(arguments) => arguments.run(),
            Verb::Unrevoke(arguments) => arguments.run(),
            Verb::AllowedSigners(arguments) => arguments.run(),
            Verb::Export(arguments) => arguments.run(),
            Verb::Import(arguments) => arguments.run(),
        }
    }
}
