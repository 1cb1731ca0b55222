//! What has to hold whatever comes from outside: one module for each target, with a function that panics if
//! it does not. `tests/seeds.rs` runs the same functions on the seeds, without a fuzzer.

pub mod attestation;
pub mod bundle;
pub mod patches;
pub mod render;
mod sections;
pub mod webhook;

/// A property of any bytes; it panics where it does not hold.
pub type Property = fn(&[u8]);

/// Each target by its name, which is its directory of seeds too.
pub const TARGETS: [(&str, Property); 5] = [
    ("attestation", attestation::holds),
    ("bundle", bundle::holds),
    ("patches", patches::holds),
    ("render", render::holds),
    ("webhook", webhook::holds),
];
