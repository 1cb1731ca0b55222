//! Trustweave makes a git repository the place where SPIFFE trust domains federate.

pub mod model;
