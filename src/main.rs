//! The `trustweave` binary.
fn main() {}
