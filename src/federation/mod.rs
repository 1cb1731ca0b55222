//! The life of a peer, as a pure function: facts in, objects and conditions out.
//!
//! **Invariants:** nothing below the watermark is delivered; a revoked key is in no bundle that is
//! delivered, and whatever else is wrong does not keep it in; an existing
//! `ClusterFederatedTrustDomain` is never made invalid, as SPIRE's controller manager would delete
//! the relationship; a peer that was federated once leaves `federatesWith` by draining, or when SPIRE
//! itself refuses its entries; a relationship is deleted only once it trusts nothing.

pub mod checkup;
pub mod conditions;
pub mod consent;
pub mod distrust;
pub mod guard;
pub mod impact;
pub mod installation;
pub mod lifecycle;
pub mod objects;
pub mod proof;
pub mod record;
pub mod resolve;
pub mod revocation;
pub mod server;
