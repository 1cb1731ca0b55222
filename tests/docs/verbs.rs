//! The page about the command line: the help of each verb.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};
use trustweave::cli::Cli;

use super::{cell, printed};

/// Each verb that does something, in words, as help orders them.
fn verbs(command: &Command, before: &str, found: &mut Vec<String>) {
    for verb in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        let name = format!("{before} {}", verb.get_name()).trim().to_owned();
        if verb.has_subcommands() {
            verbs(verb, &name, found);
        } else {
            found.push(name);
        }
    }
}

/// What help says of exit codes, in one line.
fn exit_codes(help: &str) -> Option<String> {
    let (_, codes) = help.split_once("Exit codes: ")?;
    let (codes, _) = codes.split_once("\n\n")?;
    Some(cell(codes))
}

pub(crate) fn page() -> String {
    let mut names = Vec::new();
    verbs(&Cli::command(), "", &mut names);
    let mut codes = String::new();
    let mut helps = String::new();
    for name in names {
        let arguments: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let help = printed(&arguments);
        if let Some(told) = exit_codes(&help) {
            let _ = writeln!(codes, "| `{name}` | {told} |");
        }
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(
            helps,
            "## trustweave {name}\n\n```text\n{}\n```\n\n",
            lines.join("\n").trim_end()
        );
    }
    super::page(
        "The command line",
        "Data goes to standard output, everything else to standard error. Verbs that show something write it for programs\n\
         with `-o json`. `NO_COLOR` and `CLICOLOR_FORCE` are honoured. A cluster is reached as kubectl reaches it\n\
         (`KUBECONFIG`, `--kubeconfig`, `--context`).",
        &format!(
            "## Exit codes\n\n0 is yes or done, 1 is no, 2 means that the question could not be answered, or that the \
             command line is wrong. Verbs that are not listed here have 0 and 2 only.\n\n| verb | exit codes |\n|---|---|\n{codes}\n{helps}"
        ),
    )
}
