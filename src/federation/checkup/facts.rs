//! What the checks take: everything that was read, and what could not be.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    federation::installation::{Candidate, Installation, Objects},
    model::{
        attestation::{Publication, Rejection},
        bundle::Bundle,
        declarations::Declarations,
        diagnostic::Diagnostic,
        trust_domain::TrustDomain,
    },
};

/// What is known of one cluster.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// What people call it: its context, or its name.
    pub name: String,
    /// When it was looked at.
    pub now: Timestamp,
    /// Everything that tells about its SPIRE.
    pub objects: Objects,
    /// The SPIRE server, if there is exactly one.
    pub server: Option<(Candidate, Installation)>,
    /// How many SPIRE servers there are.
    pub candidates: usize,
    /// The pods in the server's namespace.
    pub pods: Vec<Value>,
    /// Kinds of SPIRE's controller manager that the cluster does not have.
    pub missing_kinds: Vec<String>,
    /// The agent's `GitSync`.
    pub git_sync: Option<Value>,
    /// The agent's `TrustPeer`s.
    pub trust_peers: Vec<Value>,
    /// What the polled endpoints answered, by the relationship's name.
    pub answers: BTreeMap<String, Answer>,
}

/// What a bundle endpoint answered.
pub type Answer = Result<Bundle, Silence>;

/// Why an endpoint gave no bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No connection, no answer in time, or an answer that is none of a bundle endpoint.
    Unreachable(String),
    /// It does not prove to be the expected one.
    Unproven(String),
    /// What it answers is no bundle.
    NoBundle(String),
    /// It was not asked, and why.
    NotAsked(String),
}

/// What is known of a repository.
#[derive(Clone, Debug)]
pub struct RepositoryFacts {
    /// When it was looked at.
    pub now: Timestamp,
    /// What is declared.
    pub declarations: Declarations,
    /// What is wrong with the files.
    pub diagnostics: Vec<Diagnostic>,
    /// What each declared trust domain publishes.
    pub publications: BTreeMap<TrustDomain, Result<Publication, Rejection>>,
}

/// Several clusters, and the repository if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Federation<'a> {
    /// The clusters.
    pub clusters: &'a [ClusterFacts],
    /// The repository.
    pub repository: Option<&'a RepositoryFacts>,
}

impl ClusterFacts {
    /// The SPIRE server's trust domain.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        let (_, installation) = self.server.as_ref()?;
        installation.trust_domain.as_ref().map(|found| &found.value)
    }

    /// What the SPIRE server publishes of its own bundle in the cluster, if it does.
    pub fn own_bundle(&self) -> Option<Bundle> {
        let (_, installation) = self.server.as_ref()?;
        let place = &installation.configuration.published.as_ref()?.value;
        let config_map = self.objects.config_maps.iter().find(|found| {
            let metadata = &found["metadata"];
            metadata["name"] == place.name.as_str()
                && metadata["namespace"] == place.namespace.as_str()
        })?;
        Bundle::parse(config_map["data"][&place.key].as_str()?.as_bytes()).ok()
    }

    /// The installation, or why there is none.
    pub(super) fn installation(&self) -> Result<(&Candidate, &Installation), String> {
        match &self.server {
            Some((candidate, installation)) => Ok((candidate, installation)),
            None if self.candidates > 1 => {
                Err("several SPIRE servers were found: say which with --namespace".to_owned())
            }
            None => Err("no SPIRE server was found".to_owned()),
        }
    }

    /// The server's own pods.
    pub(super) fn server_pods(&self) -> impl Iterator<Item = &Value> {
        let owner = self.server.as_ref().map(|(candidate, _)| candidate);
        self.pods.iter().filter(move |pod| {
            let owners = pod["metadata"]["ownerReferences"].as_array();
            owner.is_some_and(|candidate| {
                owners.into_iter().flatten().any(|it| {
                    it["kind"] == "StatefulSet" && it["name"] == candidate.stateful_set.as_str()
                })
            })
        })
    }

    /// The server's configuration as a JSON document, and the `ConfigMap` that holds it.
    pub(super) fn server_configuration(&self) -> Option<(&Value, &str)> {
        let (candidate, installation) = self.server.as_ref()?;
        let (name, key) = installation.configuration.place.as_ref()?;
        let config_map = self.objects.config_maps.iter().find(|it| {
            let metadata = &it["metadata"];
            metadata["name"] == name.as_str()
                && metadata["namespace"] == candidate.namespace.as_str()
        })?;
        Some((config_map, config_map["data"][key].as_str()?))
    }
}
