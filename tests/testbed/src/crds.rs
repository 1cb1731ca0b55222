//! Definitions of kinds: SPIRE's own, and those that SPIRE's distributions find in their clusters.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch};
use serde_json::Value;

use crate::cluster::field_manager;
use crate::process::wait_until;

const SERVED: Duration = Duration::from_mins(1);

/// `OpenShift`'s `Route`.
pub const ROUTES: &str = include_str!("../manifests/routes.yaml");

/// Gateway API's `TLSRoute`.
pub const TLS_ROUTES: &str = include_str!("../manifests/tlsroutes.yaml");

/// The zero trust workload identity manager's `SpireServer`, 1.0 and later.
pub const SPIRE_SERVERS: &str = include_str!("../manifests/spireservers.yaml");

/// The zero trust workload identity manager's parent object.
pub const ZERO_TRUST_WORKLOAD_IDENTITY_MANAGERS: &str =
    include_str!("../manifests/zerotrustworkloadidentitymanagers.yaml");

/// Parses a definition.
pub(crate) fn parse(text: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(text).context("cannot parse a definition of a kind")
}

/// The definitions in a directory.
pub(crate) fn read(directory: &Path) -> anyhow::Result<Vec<Value>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            parse(&text).with_context(|| format!("in {}", path.display()))
        })
        .collect()
}

/// Applies definitions and waits until their kinds are served.
pub(crate) async fn install(client: &Client, definitions: &[Value]) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let crds: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let name = |definition: &Value| {
        let name = definition["metadata"]["name"].as_str();
        name.unwrap_or_default().to_owned()
    };
    for definition in definitions {
        let name = name(definition);
        crds.patch(&name, &field_manager(), &Patch::Apply(definition))
            .await
            .with_context(|| format!("cannot apply {name}"))?;
    }
    for definition in definitions {
        let name = name(definition);
        wait_until(&format!("{name} to be established"), SERVED, async || {
            let crd = crds.get(&name).await?;
            let conditions = crd.data["status"]["conditions"].as_array();
            let established = conditions.is_some_and(|conditions| {
                conditions.iter().any(|condition| {
                    condition["type"] == "Established" && condition["status"] == "True"
                })
            });
            Ok(established.then_some(()))
        })
        .await?;
    }
    Ok(())
}
