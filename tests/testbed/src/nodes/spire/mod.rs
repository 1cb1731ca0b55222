//! SPIRE in pods, as the distributions install it: objects are called as the Helm charts and Red Hat's operator call
//! them, so that what manages them finds here what it finds there.

mod agent;
mod rights;
mod server;

use std::ops::Deref;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};

use super::NodeSpec;
use super::images::spire_path;
use crate::access::{Access, START};
use crate::process::wait_until;
use crate::server_commands::ServerCommands;
use crate::spire_configuration::BUNDLE_CONFIG_MAP;

/// The `StatefulSet`, `ConfigMap`, `Service` and `ServiceAccount` of the server.
pub const SERVER: &str = "spire-server";

/// The server's pod.
pub const POD: &str = "spire-server-0";

/// The server's container in its pod.
pub const CONTAINER: &str = "spire-server";

/// spire-controller-manager's container in the same pod.
pub const CONTROLLER_MANAGER_CONTAINER: &str = "spire-controller-manager";

/// The `DaemonSet`, `ConfigMap` and `ServiceAccount` of the agent.
pub const AGENT: &str = "spire-agent";

/// The driver of volumes (`csi: {driver, readOnly: true}`) with the Workload API's socket, `spire-agent.sock`.
pub const CSI_DRIVER: &str = "csi.spiffe.io";

/// The directory of the node with the same socket, for pods that mount a hostPath.
pub const SOCKETS: &str = "/run/spire/agent-sockets";

/// The SPIRE of one trust domain.
pub struct Spire {
    spec: NodeSpec,
    commands: ServerCommands,
}

impl Spire {
    /// Installs it, and returns when server and agent are ready.
    pub(super) async fn install(access: &Access, spec: &NodeSpec) -> anyhow::Result<Self> {
        let version = spec.cluster.spire_version()?;
        let namespace = &spec.cluster.spire_namespace;
        access.create_namespace(namespace).await?;
        apply(access, rights::objects(namespace)).await?;
        apply(access, server::objects(spec, version)).await?;
        access
            .until_rolled_out(namespace, &format!("statefulset/{SERVER}"))
            .await?;
        let spire = Self {
            spec: spec.clone(),
            commands: access.server_commands(namespace, POD, CONTAINER, &spire_path(SERVER)),
        };
        spire.until_agents_can_bootstrap(access).await?;
        apply(access, agent::objects(spec, version)).await?;
        access
            .until_rolled_out(namespace, &format!("daemonset/{AGENT}"))
            .await?;
        Ok(spire)
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.spec.cluster.trust_domain
    }

    /// The class that spire-controller-manager reconciles.
    pub fn class_name(&self) -> &str {
        &self.spec.cluster.class_name
    }

    /// The namespace that it is installed in.
    pub fn namespace(&self) -> &str {
        &self.spec.cluster.spire_namespace
    }

    async fn until_agents_can_bootstrap(&self, access: &Access) -> anyhow::Result<()> {
        let config_maps: Api<ConfigMap> = Api::namespaced(access.client.clone(), self.namespace());
        wait_until("the server to write its roots", START, async || {
            let roots = config_maps.get(BUNDLE_CONFIG_MAP).await?;
            let roots = roots.data.unwrap_or_default();
            Ok(roots.contains_key("bundle.crt").then_some(()))
        })
        .await
    }
}

/// What can be asked of its server, by running its program in its pod.
impl Deref for Spire {
    type Target = ServerCommands;

    fn deref(&self) -> &ServerCommands {
        &self.commands
    }
}

async fn apply(access: &Access, objects: Vec<Value>) -> anyhow::Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    access.kubectl_apply(&list.to_string()).await?;
    Ok(())
}
