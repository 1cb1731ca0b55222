//! The vocabulary: trust domains, topology, bundles, attestations, manifests, the repository's layout.
//!
//! **Invariant:** nothing here does I/O, is async, reads a clock or the environment. What a user
//! wrote wrongly is data ([`diagnostic::Diagnostic`]), never an `Err` that hides the rest.

pub mod attestation;
pub mod bundle;
pub mod bundle_endpoint;
pub mod bundle_set;
pub mod declaration;
pub mod declarations;
pub mod diagnostic;
pub mod distrust;
pub mod field_owners;
pub mod manifest;
pub mod repository;
pub mod scalar;
pub mod topology;
pub mod trust_domain;
pub mod yaml;
