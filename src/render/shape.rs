//! What strategic merge needs to know of built-in kinds: which lists are merged, and by which keys.
//!
//! From kustomize's compiled-in `OpenAPI` document (`x-kubernetes-patch-merge-key`,
//! `x-kubernetes-list-map-keys`), without `status`, which nobody declares.

use super::builtin;

/// A part of an object: its fields of interest, and how it merges if it is a list.
#[derive(Debug)]
pub(super) struct Shape {
    fields: &'static [(&'static str, &'static Shape)],
    merge: Option<Merge>,
}

/// How a list merges: its elements are known by the values of `keys`; without keys the elements
/// are plain values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) keys: &'static [&'static str],
    pub(super) element: &'static Shape,
}

impl Shape {
    const fn map(fields: &'static [(&'static str, &'static Self)]) -> Self {
        Self {
            fields,
            merge: None,
        }
    }

    const fn list(keys: &'static [&'static str], element: &'static Self) -> Self {
        Self {
            fields: &[],
            merge: Some(Merge { keys, element }),
        }
    }

    /// The shape of a field, if anything is known of it.
    pub(super) fn field(&self, name: &str) -> Option<&'static Self> {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, shape)| *shape)
    }

    /// How it merges, if it is a list that does.
    pub(super) fn merge(&self) -> Option<Merge> {
        self.merge
    }

    /// The shape of a kind; `None` for kinds that kustomize does not know.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<&'static Self> {
        match (api_version, kind) {
            ("apps/v1", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
            | ("batch/v1", "Job")
            | ("v1", "ReplicationController") => Some(&WORKLOAD),
            ("batch/v1" | "batch/v1beta1", "CronJob") => Some(&CRON_JOB),
            ("v1", "Pod") => Some(&POD),
            ("v1", "PodTemplate") => Some(&POD_TEMPLATE),
            ("v1", "Service") => Some(&SERVICE),
            ("v1", "ServiceAccount") => Some(&SERVICE_ACCOUNT),
            (
                "admissionregistration.k8s.io/v1" | "admissionregistration.k8s.io/v1beta1",
                "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
            ) => Some(&WEBHOOK_CONFIGURATION),
            _ => builtin::is_known(api_version, kind).then_some(&OBJECT),
        }
    }
}

static PLAIN: Shape = Shape::map(&[]);
static VALUES: Shape = Shape::list(&[], &PLAIN);
static BY_NAME: Shape = Shape::list(&["name"], &PLAIN);

static OWNERS: Shape = Shape::list(&["uid"], &PLAIN);
static METADATA: Shape = Shape::map(&[("finalizers", &VALUES), ("ownerReferences", &OWNERS)]);
static OBJECT: Shape = Shape::map(&[("metadata", &METADATA)]);

static CONTAINER_PORTS: Shape = Shape::list(&["containerPort", "protocol"], &PLAIN);
static DEVICES: Shape = Shape::list(&["devicePath"], &PLAIN);
static MOUNTS: Shape = Shape::list(&["mountPath"], &PLAIN);
static CONTAINER: Shape = Shape::map(&[
    ("env", &BY_NAME),
    ("ports", &CONTAINER_PORTS),
    ("volumeDevices", &DEVICES),
    ("volumeMounts", &MOUNTS),
]);
static CONTAINERS: Shape = Shape::list(&["name"], &CONTAINER);
static EPHEMERAL_CONTAINER: Shape = Shape::map(&[
    ("env", &BY_NAME),
    ("volumeDevices", &DEVICES),
    ("volumeMounts", &MOUNTS),
]);
static EPHEMERAL_CONTAINERS: Shape = Shape::list(&["name"], &EPHEMERAL_CONTAINER);
static CLAIM_TEMPLATE: Shape = Shape::map(&[("volumeClaimTemplate", &OBJECT)]);
static VOLUME: Shape = Shape::map(&[("ephemeral", &CLAIM_TEMPLATE)]);
static VOLUMES: Shape = Shape::list(&["name"], &VOLUME);
static HOST_ALIASES: Shape = Shape::list(&["ip"], &PLAIN);
static SPREAD: Shape = Shape::list(&["topologyKey", "whenUnsatisfiable"], &PLAIN);
static POD_SPEC: Shape = Shape::map(&[
    ("containers", &CONTAINERS),
    ("ephemeralContainers", &EPHEMERAL_CONTAINERS),
    ("hostAliases", &HOST_ALIASES),
    ("imagePullSecrets", &BY_NAME),
    ("initContainers", &CONTAINERS),
    ("topologySpreadConstraints", &SPREAD),
    ("volumes", &VOLUMES),
]);
static POD: Shape = Shape::map(&[("metadata", &METADATA), ("spec", &POD_SPEC)]);
static POD_TEMPLATE: Shape = Shape::map(&[("metadata", &METADATA), ("template", &POD)]);

static WORKLOAD_SPEC: Shape = Shape::map(&[("template", &POD)]);
static WORKLOAD: Shape = Shape::map(&[("metadata", &METADATA), ("spec", &WORKLOAD_SPEC)]);
static CRON_JOB_SPEC: Shape = Shape::map(&[("jobTemplate", &WORKLOAD)]);
static CRON_JOB: Shape = Shape::map(&[("metadata", &METADATA), ("spec", &CRON_JOB_SPEC)]);

static SERVICE_PORTS: Shape = Shape::list(&["port", "protocol"], &PLAIN);
static SERVICE_SPEC: Shape = Shape::map(&[("ports", &SERVICE_PORTS)]);
static SERVICE: Shape = Shape::map(&[("metadata", &METADATA), ("spec", &SERVICE_SPEC)]);
static SERVICE_ACCOUNT: Shape = Shape::map(&[("metadata", &METADATA), ("secrets", &BY_NAME)]);
static WEBHOOK_CONFIGURATION: Shape =
    Shape::map(&[("metadata", &METADATA), ("webhooks", &BY_NAME)]);
