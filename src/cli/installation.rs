//! Reading what tells about the SPIRE that is installed in a live cluster, for verbs that explain it.

use std::collections::BTreeSet;

use crate::{
    cluster::{KubeCluster, installation},
    federation::{
        installation::{Candidate, Objects, configuration},
        objects::{CFTD, CLUSTER_SPIFFE_ID, CLUSTER_STATIC_ENTRY, SPIRE_API_VERSION},
    },
    model::manifest::{Gvk, ObjectRef},
};

/// The definition of the zero trust workload identity manager's kind.
const SPIRE_SERVER_DEFINITION: &str = "spireservers.operator.openshift.io";

/// The objects of all namespaces that tell about a SPIRE installation, without `ConfigMap`s.
pub(super) async fn objects(cluster: &KubeCluster) -> Objects {
    let mut unread = Vec::new();
    let mut all = async |api_version: &str, kind: &str| {
        installation::all(cluster, api_version, kind, &mut unread).await
    };
    let mut registrations = all(SPIRE_API_VERSION, CLUSTER_SPIFFE_ID).await;
    registrations.extend(all(SPIRE_API_VERSION, CLUSTER_STATIC_ENTRY).await);
    let mut tls_routes = all("gateway.networking.k8s.io/v1", "TLSRoute").await;
    if tls_routes.is_empty() {
        tls_routes = all("gateway.networking.k8s.io/v1alpha2", "TLSRoute").await;
    }
    let mut objects = Objects {
        stateful_sets: all("apps/v1", "StatefulSet").await,
        deployments: all("apps/v1", "Deployment").await,
        services: all("v1", "Service").await,
        routes: all("route.openshift.io/v1", "Route").await,
        ingresses: all("networking.k8s.io/v1", "Ingress").await,
        relationships: all(SPIRE_API_VERSION, CFTD).await,
        registrations,
        tls_routes,
        ..Objects::default()
    };
    let definition = ObjectRef {
        gvk: Gvk::new("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        namespace: None,
        name: SPIRE_SERVER_DEFINITION.to_owned(),
    };
    objects.spire_server_definition = installation::one(cluster, &definition, &mut unread).await;
    objects.unread = unread;
    objects
}

/// The `ConfigMap`s that may hold a configuration, and the one that all distributions keep roots in.
pub(super) async fn config_maps(
    cluster: &KubeCluster,
    candidate: &Candidate,
    objects: &mut Objects,
) -> Vec<serde_json::Value> {
    let managers = configuration::managers(&objects.deployments, &candidate.namespace);
    let names = candidate.config_maps.iter().cloned().chain(managers);
    let names: BTreeSet<_> = names
        .chain(["spire-bundle".to_owned()])
        .map(|name| (candidate.namespace.clone(), name))
        .collect();
    installation::config_maps(cluster, &names, &mut objects.unread).await
}
