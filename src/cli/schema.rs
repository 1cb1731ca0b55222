//! `trustweave schema`.

use clap::{Args, ValueEnum};
use schemars::{SchemaGenerator, generate::SchemaSettings};

use super::{Answer, diff, output};
use crate::{
    agent::config,
    cluster::types,
    model::{
        attestation::Attestation,
        bundle_set::BundleSet,
        declaration::{Envelope, TrustDomainSpec},
        distrust::DistrustSpec,
        topology::TopologySpec,
        yaml,
    },
};

/// Print the JSON Schema of a kind or an answer, or the CRDs
///
/// Editors check and complete a file by its schema: put
/// `# yaml-language-server: $schema=<path or URL>` on the first line.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to print
    #[arg(value_enum)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// `topology.yaml`.
    Topology,
    /// `trust-domains/<trust-domain>/trust-domain.yaml`.
    TrustDomain,
    /// `trust-domains/<trust-domain>/distrust.yaml`.
    Distrust,
    /// `bundle.attestation.json`, which is signed with each publication.
    BundleAttestation,
    /// What `trustweave bundle export` writes.
    BundleSet,
    /// The configuration file of `trustweave agent`.
    AgentConfig,
    /// What `trustweave diff -o json` answers.
    Diff,
    /// The `CustomResourceDefinition`s of `GitSync` and `TrustPeer`.
    Crds,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let generator = || SchemaGenerator::new(SchemaSettings::draft07());
        let schema = match self.kind {
            Kind::Topology => generator().into_root_schema_for::<Envelope<TopologySpec>>(),
            Kind::TrustDomain => generator().into_root_schema_for::<Envelope<TrustDomainSpec>>(),
            Kind::Distrust => generator().into_root_schema_for::<Envelope<DistrustSpec>>(),
            Kind::BundleAttestation => generator().into_root_schema_for::<Attestation>(),
            Kind::BundleSet => generator().into_root_schema_for::<BundleSet>(),
            Kind::AgentConfig => generator().into_root_schema_for::<config::Config>(),
            Kind::Diff => {
                let settings = SchemaSettings::draft07().for_serialize();
                SchemaGenerator::new(settings).into_root_schema_for::<diff::Document>()
            }
            Kind::Crds => {
                output::data(&yaml::emit(&types::crds()))?;
                return Ok(Answer::Yes);
            }
        };
        output::json(&schema.to_value())?;
        Ok(Answer::Yes)
    }
}
