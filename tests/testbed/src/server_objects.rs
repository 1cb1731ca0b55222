//! The objects that a SPIRE server consists of in its cluster, as its distributions install them.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Client;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::cluster::{ClusterSpec, field_manager};
use crate::configuration;
use crate::loopback::{BUNDLE_ENDPOINT_PORT, CONFIGURATION_MOUNT, DATA_MOUNT};
use crate::operator::OperatorVersion;

/// What the `StatefulSet`, its Service, its `ConfigMap` and the container of the server are called.
pub const SPIRE_SERVER: &str = "spire-server";

/// What the second container and its `ConfigMap` are called.
pub const CONTROLLER_MANAGER: &str = "spire-controller-manager";

/// The key with the server's configuration.
pub const CONFIGURATION_KEY: &str = "server.conf";

/// The key with the controller manager's configuration.
pub const CONTROLLER_MANAGER_KEY: &str = "controller-manager-config.yaml";

/// The server's only pod.
pub const POD: &str = "spire-server-0";

pub(crate) const DATA_VOLUME: &str = "spire-data";

/// How the SPIRE server is present in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Installed {
    /// As a process alone, with a bundle endpoint. Nothing in the cluster stands for it.
    #[default]
    Process,
    /// By the objects of an installation. What the objects say is what runs, as with a kubelet.
    Objects(ServerObjects),
    /// By the operator of `OpenShift`'s zero trust workload identity manager, which makes the objects.
    Operator(OperatorVersion),
}

/// An installation's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerObjects {
    /// Who installed them.
    pub distribution: Distribution,
    /// What becomes of the server's data when its pod is replaced.
    pub data: DataVolume,
    /// Whether the server's configuration has a bundle endpoint from the start; as a rule it has none.
    pub bundle_endpoint: bool,
}

impl ServerObjects {
    /// An installation whose data outlives a pod, without a bundle endpoint.
    pub fn new(distribution: Distribution) -> Self {
        Self {
            distribution,
            data: DataVolume::Claim,
            bundle_endpoint: false,
        }
    }
}

/// Who installed a SPIRE server's objects: it shows in labels and in managed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Somebody with kubectl.
    Custom,
    /// The upstream Helm charts, release `spire`.
    Helm,
}

/// Where the server's data lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataVolume {
    /// In a volume that is claimed for the pod's name.
    Claim,
    /// In an `emptyDir`: a new pod starts with nothing.
    EmptyDir,
}

impl Distribution {
    fn labels(self) -> Value {
        match self {
            Self::Custom => json!({"app": SPIRE_SERVER}),
            Self::Helm => json!({
                "app.kubernetes.io/name": "server",
                "app.kubernetes.io/instance": "spire",
                "app.kubernetes.io/managed-by": "Helm",
                "helm.sh/chart": "spire-server-0.1.0",
            }),
        }
    }

    fn selector(self) -> Value {
        match self {
            Self::Custom => self.labels(),
            Self::Helm => json!({
                "app.kubernetes.io/name": "server",
                "app.kubernetes.io/instance": "spire",
            }),
        }
    }

    fn annotations(self, namespace: &str) -> Value {
        match self {
            Self::Custom => json!({}),
            Self::Helm => json!({
                "meta.helm.sh/release-name": "spire",
                "meta.helm.sh/release-namespace": namespace,
            }),
        }
    }

    /// Under which name its writes are recorded.
    fn field_manager(self) -> &'static str {
        match self {
            Self::Custom => "kubectl-create",
            Self::Helm => "helm",
        }
    }
}

/// What the objects of one installation have in common.
pub(crate) struct Shape<'a> {
    pub(crate) namespace: &'a str,
    /// Of all objects, and of the pod.
    pub(crate) labels: Value,
    /// Of the pod, as the `StatefulSet` and the Service have them.
    pub(crate) selector: Value,
    /// Of all objects.
    pub(crate) annotations: Value,
    /// Of the pod.
    pub(crate) pod_annotations: Value,
    pub(crate) data: DataVolume,
}

impl Shape<'_> {
    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels,
            "annotations": self.annotations,
        })
    }

    pub(crate) fn config_map(&self, name: &str, key: &str, content: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self.metadata(name),
            "data": {key: content},
        })
    }

    pub(crate) fn service(&self, ports: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(SPIRE_SERVER),
            "spec": {"type": "ClusterIP", "selector": self.selector, "ports": ports},
        })
    }

    pub(crate) fn stateful_set(&self, ports: &Value) -> Value {
        let mut volumes = vec![
            json!({"name": "spire-config", "configMap": {"name": SPIRE_SERVER}}),
            json!({"name": "controller-manager-config", "configMap": {"name": CONTROLLER_MANAGER}}),
            json!({"name": "spire-server-socket", "emptyDir": {}}),
            json!({"name": "server-tmp", "emptyDir": {}}),
        ];
        let mut claims = Vec::new();
        match self.data {
            DataVolume::EmptyDir => volumes.push(json!({"name": DATA_VOLUME, "emptyDir": {}})),
            DataVolume::Claim => claims.push(json!({
                "metadata": {"name": DATA_VOLUME},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            })),
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": self.metadata(SPIRE_SERVER),
            "spec": {
                "replicas": 1,
                "serviceName": SPIRE_SERVER,
                "selector": {"matchLabels": self.selector},
                "template": {
                    "metadata": {"labels": self.labels, "annotations": self.pod_annotations},
                    "spec": {
                        "serviceAccountName": SPIRE_SERVER,
                        "shareProcessNamespace": true,
                        "containers": [server_container(ports), controller_manager_container()],
                        "volumes": volumes,
                    },
                },
                "volumeClaimTemplates": claims,
            },
        })
    }
}

fn server_container(ports: &Value) -> Value {
    json!({
        "name": SPIRE_SERVER,
        "image": "ghcr.io/spiffe/spire-server",
        "args": ["-expandEnv", "-config", format!("{CONFIGURATION_MOUNT}/{CONFIGURATION_KEY}")],
        "ports": ports,
        "livenessProbe": {"httpGet": {"path": "/live", "port": "server-healthz"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "server-healthz"}},
        "volumeMounts": [
            {"name": "spire-server-socket", "mountPath": "/tmp/spire-server/private"},
            {"name": "spire-config", "mountPath": CONFIGURATION_MOUNT, "readOnly": true},
            {"name": DATA_VOLUME, "mountPath": DATA_MOUNT},
            {"name": "server-tmp", "mountPath": "/tmp"},
        ],
    })
}

fn controller_manager_container() -> Value {
    let path = format!("/{CONTROLLER_MANAGER_KEY}");
    json!({
        "name": CONTROLLER_MANAGER,
        "image": "ghcr.io/spiffe/spire-controller-manager",
        "args": [format!("--config={CONTROLLER_MANAGER_KEY}")],
        "ports": [
            {"name": "https", "containerPort": 9443, "protocol": "TCP"},
            {"name": "ctrlmgr-healthz", "containerPort": 8083, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "ctrlmgr-healthz"}},
        "volumeMounts": [
            {"name": "spire-server-socket", "mountPath": "/tmp/spire-server/private", "readOnly": true},
            {
                "name": "controller-manager-config",
                "mountPath": path,
                "subPath": CONTROLLER_MANAGER_KEY,
                "readOnly": true,
            },
        ],
    })
}

/// The container's ports without a bundle endpoint.
pub(crate) fn container_ports() -> Value {
    json!([
        {"name": "grpc", "containerPort": 8081, "protocol": "TCP"},
        {"name": "server-healthz", "containerPort": 8080, "protocol": "TCP"},
    ])
}

/// The container's port of the bundle endpoint.
pub(crate) fn bundle_endpoint_container_port() -> Value {
    json!({"name": "federation", "containerPort": BUNDLE_ENDPOINT_PORT, "protocol": "TCP"})
}

/// Creates the objects of an installation.
pub(crate) async fn install(
    client: &Client,
    spec: &ClusterSpec,
    objects: &ServerObjects,
) -> anyhow::Result<()> {
    let distribution = objects.distribution;
    let shape = Shape {
        namespace: &spec.spire_namespace,
        labels: distribution.labels(),
        selector: distribution.selector(),
        annotations: distribution.annotations(&spec.spire_namespace),
        pod_annotations: json!({"kubectl.kubernetes.io/default-container": SPIRE_SERVER}),
        data: objects.data,
    };
    let mut ports = container_ports();
    if objects.bundle_endpoint {
        let ports = ports.as_array_mut().context("no list of ports")?;
        ports.push(bundle_endpoint_container_port());
    }
    let server = configuration::server(spec, objects.bundle_endpoint);
    let server = serde_json::to_string_pretty(&server)?;
    let controller_manager = configuration::controller_manager(spec);
    let controller_manager = serde_json::to_string_pretty(&controller_manager)?;
    let service_ports =
        json!([{"name": "grpc", "port": 443, "targetPort": "grpc", "protocol": "TCP"}]);
    let manager = distribution.field_manager();
    for object in [
        shape.config_map(SPIRE_SERVER, CONFIGURATION_KEY, &server),
        shape.config_map(
            CONTROLLER_MANAGER,
            CONTROLLER_MANAGER_KEY,
            &controller_manager,
        ),
        shape.service(&service_ports),
        shape.stateful_set(&ports),
    ] {
        create(client, manager, object).await?;
    }
    Ok(())
}

/// Creates a namespaced object in the name of a field manager.
pub(crate) async fn create(client: &Client, manager: &str, object: Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().unwrap_or_default();
    let kind = GroupVersionKind::try_from(&types)?;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &ApiResource::from_gvk(&kind));
    let parameters = PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    api.create(&parameters, &object)
        .await
        .with_context(|| format!("cannot create {} {name}", types.kind))?;
    Ok(())
}

/// Binds a volume to the claim of the server's pod: nobody provisions any here.
pub(crate) async fn bind_data_volume(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let claim = format!("{DATA_VOLUME}-{POD}");
    let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": DATA_VOLUME},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": "/run/spire"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    });
    volumes
        .patch(DATA_VOLUME, &field_manager(), &Patch::Apply(&volume))
        .await
        .context("cannot create the volume")?;
    volumes
        .patch_status(DATA_VOLUME, &PatchParams::default(), &bound)
        .await
        .context("cannot bind the volume")?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let object = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim,
            // Without it the scheduler takes the claim for one that is still being bound.
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeName": DATA_VOLUME,
        },
    });
    claims
        .patch(&claim, &field_manager(), &Patch::Apply(&object))
        .await
        .context("cannot create the claim")?;
    claims
        .patch_status(&claim, &PatchParams::default(), &bound)
        .await
        .context("cannot bind the claim")?;
    Ok(())
}
