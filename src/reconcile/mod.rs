//! The two loops, one direction each, that meet only in git: [`sync`] brings git to the cluster,
//! [`publish`] brings SPIRE to git, or [`proposal`] to people who decide.
//!
//! **Invariants:** both are level-triggered: a pass reads everything it needs and computes what
//! should be, so a pass that was missed or killed costs nothing but time. What must not be forgotten
//! is written by the same request that makes it true (the watermark with the bundle). Ports are
//! traits here: no git2, no kube.

pub mod desired;
mod memory;
mod overlay;
pub mod proposal;
pub mod publish;
mod report;
pub mod reported;
pub mod schedule;
pub mod server;
pub mod settings;
pub mod sync;
