//! Builds everything that the testbed runs into its cache: the first time takes minutes, and tests hide what they print.

#![expect(
    clippy::print_stdout,
    reason = "the progress of a long build is what it is for"
)]

use trustweave_testbed::binaries::Binaries;

fn main() -> anyhow::Result<()> {
    Binaries::ensure(&|line| println!("{line}"))?;
    println!("the testbed's programs are built");
    Ok(())
}
