//! Trustweave makes a git repository the place where SPIFFE trust domains federate.
//!
//! One agent in each Kubernetes cluster follows the repository, applies its cluster's overlay,
//! publishes its own trust bundle, signed, and delivers its peers' bundles to its SPIRE server in a
//! safe order. People change who trusts whom by pull request.
//!
//! # How data flows
//!
//! ```text
//! main ──fetch──► mirror ──► model ──► render ──► federation::resolve ──► plan ──► apply ──► cluster
//! trustweave/* ─► mirror ──► attestation::verify ──► federation::lifecycle ──┘                  │
//!                                                          ▲            live objects, probes ◄──┘
//! SPIRE ──► own bundle ──► canonical ──► attest, sign ──► commit ──► compare-and-swap push ──► trustweave/<own>
//! ```
//!
//! Two loops, one direction each, meet only in git. Both are level-triggered: a pass reads all that
//! it needs and computes what should be, so that nothing depends on what a process remembers.
//!
//! # Layers
//!
//! Arrows point down only; `tests/architecture.rs` enforces it, and which crate may be named where.
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | shell | [`cli`], [`agent`] | verbs; supervision, HTTP, logs. The only places that read clock and environment |
//! | orchestration | [`reconcile`] | the two loops' passes, over the ports as traits |
//! | ports | [`git`], [`forge`], [`cluster`], [`spire`] | the only places that do I/O, one error enum each |
//! | pure | [`render`], [`federation`], [`plan`] | values in, values out |
//! | pure | [`model`] | the vocabulary |
//!
//! A cluster may have several agents: of these, the one that holds a `Lease` makes passes, and asks
//! before every single write whether it still does ([`cluster::lease`] says what that guarantees and
//! what not). Each agent acts as two identities: as itself, with narrow rights, about peers and
//! reports; and as a `ServiceAccount` that it impersonates, with the rights that users granted, about
//! the overlay's objects, and about nothing else ([`cluster`]).
//!
//! Where a behaviour lives: what a kustomization means in [`render`]; whether a bundle may be
//! delivered in [`federation::guard`] and [`federation::lifecycle`]; who may name a peer in
//! [`federation::resolve`]; which keys are revoked in [`federation::revocation`]; what a change does to
//! trust in [`federation::impact`]; what keeps a federation from working in [`federation::checkup`], and
//! what proves that it works in [`federation::proof`]; what an agent reports, read back, in
//! [`reconcile::reported`], and how people see it in [`agent::page`] and `cli::status`; what gets
//! written and deleted, and what other writers keep, in [`plan`]; what is signed and checked in
//! [`model::attestation`]; what a peer's endpoint may answer in [`spire::endpoint`]; what is asked
//! of GitHub, GitLab and Gitea in [`forge`], and when in [`reconcile::proposal`]; who of several agents
//! writes in [`cluster::lease`].
//!
//! # Invariants
//!
//! 1. Nothing below a peer's watermark is delivered; one serial with two digests is refused.
//! 2. A revoked key is in nothing that is delivered, and is taken from SPIRE at once, whatever else is
//!    wrong. A revocation that was seen once is in force until its author lifts it.
//! 3. A bundle that does not parse, is empty, expired, another trust domain's, or not signed by a
//!    declared signer is never delivered, and never touches the relationship that is there: SPIRE's
//!    controller manager would delete an invalid one.
//! 4. Who leaves is first taken out of registrations, then trusted by nobody, then forgotten, in this
//!    order; the reviewed branch is not followed backwards.
//! 5. What can't be read ends nothing: a broken file leaves in force what was good, also after a
//!    restart, as the cluster itself remembers it.
//! 6. Same content, same bytes: nothing is committed, pushed or applied twice.
//! 7. An agent writes in git only its own branch or directory, only while it holds the Lease, and is
//!    never taken to have pushed because no error came. What it only proposes is merged by people.
//! 8. *Pushed* is not *Confirmed*: a peer may be named in registrations once SPIRE accepted an entry
//!    that federates with it, and is confirmed once a workload was seen to hold its keys.
//! 9. Secrets' values never get into a text.
//!
//! # Where this differs from the first design
//!
//! YAML is read by [`model::yaml`] from a parser's events, not with `serde_yaml`: kustomize needs
//! `0644` told from `"0644"`, diagnostics need positions, and declarations need YAML before anything
//! is rendered. `serde_yaml` checks it as an independent reader in a property test.

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod federation;
pub mod forge;
pub mod git;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod render;
pub mod spire;
