//! Builds everything that the testbed runs into its cache: the first time takes minutes, and tests hide what they print.

#![expect(
    clippy::print_stdout,
    reason = "the progress of a long build is what it is for"
)]

use trustweave_testbed::{
    SpireVersion,
    binaries::{Binaries, NodeBinaries, WorkloadClients, kustomize},
};

fn main() -> anyhow::Result<()> {
    let progress = |line: &str| println!("{line}");
    Binaries::ensure(&SpireVersion::ALL.into(), &progress)?;
    NodeBinaries::ensure(&progress)?;
    WorkloadClients::ensure(&progress)?;
    kustomize(&progress)?;
    println!("the testbed's programs are built");
    Ok(())
}
