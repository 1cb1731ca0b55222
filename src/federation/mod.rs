//! The life of a peer, as a pure function: facts in, objects and conditions out.
//!
//! **Invariants:** nothing below the watermark is delivered; an existing
//! `ClusterFederatedTrustDomain` is never made invalid, as SPIRE's controller manager would delete
//! the relationship; a peer that was federated once leaves `federatesWith` only by draining.

pub mod conditions;
pub mod consent;
pub mod distrust;
pub mod guard;
pub mod impact;
pub mod lifecycle;
pub mod objects;
pub mod resolve;
