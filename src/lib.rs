//! Trustweave makes a git repository the place where SPIFFE trust domains federate.

pub mod cluster;
pub mod federation;
pub mod git;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod render;
pub mod spire;
