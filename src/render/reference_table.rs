//! Which fields name which objects: kustomize's table of name references.
//!
//! The order of the table is the one in which references are followed. `IngressClass` is not in it:
//! kustomize has an entry, whose group can't be any object's.

use super::field::Field;

/// Objects that are named, and the fields that name them.
pub(super) struct Named {
    pub(super) group: Option<&'static str>,
    pub(super) version: Option<&'static str>,
    pub(super) kind: &'static str,
    fields: &'static [Field<'static>],
    /// Paths inside the specification of a pod.
    in_pods: &'static [&'static str],
    pods: &'static [Field<'static>],
}

impl Named {
    /// Every field that may name such an object, with its whole path.
    pub(super) fn fields(&self) -> Vec<(Field<'static>, String)> {
        let own = self
            .fields
            .iter()
            .map(|field| (*field, field.path.to_owned()));
        let in_pods = self.pods.iter().flat_map(|pod| {
            self.in_pods
                .iter()
                .map(|path| (*pod, format!("{}/{path}", pod.path)))
        });
        own.chain(in_pods).collect()
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const WEBHOOKS: &str = "admissionregistration.k8s.io";

/// Where pods with references to configuration are.
const CONFIGURED_PODS: &[Field<'_>] = &[
    Field::in_v1("Pod", "spec", false),
    Field::of("PodTemplate", "template/spec", false),
    Field::of("Deployment", "spec/template/spec", false),
    Field::of("ReplicaSet", "spec/template/spec", false),
    Field::of("DaemonSet", "spec/template/spec", false),
    Field::of("StatefulSet", "spec/template/spec", false),
    Field::of("Job", "spec/template/spec", false),
    Field::of("CronJob", "spec/jobTemplate/spec/template/spec", false),
];

/// Where pods with other references are.
const PODS: &[Field<'_>] = &[
    Field::of("Pod", "spec", false),
    Field::of("StatefulSet", "spec/template/spec", false),
    Field::of("Deployment", "spec/template/spec", false),
    Field::of("ReplicationController", "spec/template/spec", false),
    Field::of("CronJob", "spec/jobTemplate/spec/template/spec", false),
    Field::of("Job", "spec/template/spec", false),
    Field::of("DaemonSet", "spec/template/spec", false),
];

const SCALED: &[Field<'_>] = &[Field::of(
    "HorizontalPodAutoscaler",
    "spec/scaleTargetRef/name",
    false,
)];

const fn named(
    group: Option<&'static str>,
    version: Option<&'static str>,
    kind: &'static str,
    fields: &'static [Field<'static>],
) -> Named {
    Named {
        group,
        version,
        kind,
        fields,
        in_pods: &[],
        pods: &[],
    }
}

const fn ingress(path: &'static str) -> Field<'static> {
    Field::of("Ingress", path, false)
}

/// The table.
pub(super) const NAMED: &[Named] = &[
    named(
        Some("storage.k8s.io"),
        Some("v1"),
        "StorageClass",
        &[
            Field::of("PersistentVolume", "spec/storageClassName", false),
            Field::of("PersistentVolumeClaim", "spec/storageClassName", false),
            Field::of(
                "StatefulSet",
                "spec/volumeClaimTemplates/spec/storageClassName",
                false,
            ),
        ],
    ),
    Named {
        in_pods: &["serviceAccountName"],
        pods: PODS,
        ..named(
            None,
            Some("v1"),
            "ServiceAccount",
            &[
                Field::in_group(RBAC, "RoleBinding", "subjects", false),
                Field::in_group(RBAC, "ClusterRoleBinding", "subjects", false),
            ],
        )
    },
    named(
        Some(RBAC),
        None,
        "Role",
        &[Field::in_group(RBAC, "RoleBinding", "roleRef/name", false)],
    ),
    named(
        Some(RBAC),
        None,
        "ClusterRole",
        &[
            Field::in_group(RBAC, "RoleBinding", "roleRef/name", false),
            Field::in_group(RBAC, "ClusterRoleBinding", "roleRef/name", false),
        ],
    ),
    Named {
        in_pods: &[
            "volumes/configMap/name",
            "containers/env/valueFrom/configMapKeyRef/name",
            "initContainers/env/valueFrom/configMapKeyRef/name",
            "containers/envFrom/configMapRef/name",
            "initContainers/envFrom/configMapRef/name",
            "volumes/projected/sources/configMap/name",
        ],
        pods: CONFIGURED_PODS,
        ..named(
            None,
            Some("v1"),
            "ConfigMap",
            &[
                Field::of("Node", "spec/configSource/configMap", false),
                Field::of("Role", "rules/resourceNames", false),
                Field::of("ClusterRole", "rules/resourceNames", false),
                ingress(
                    r"metadata/annotations/nginx.ingress.kubernetes.io\/fastcgi-params-configmap",
                ),
            ],
        )
    },
    Named {
        in_pods: &[
            "volumes/secret/secretName",
            "containers/env/valueFrom/secretKeyRef/name",
            "initContainers/env/valueFrom/secretKeyRef/name",
            "containers/envFrom/secretRef/name",
            "initContainers/envFrom/secretRef/name",
            "imagePullSecrets/name",
            "volumes/projected/sources/secret/name",
        ],
        pods: CONFIGURED_PODS,
        ..named(
            None,
            Some("v1"),
            "Secret",
            &[
                ingress("spec/tls/secretName"),
                ingress(r"metadata/annotations/ingress.kubernetes.io\/auth-secret"),
                ingress(r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-secret"),
                ingress(r"metadata/annotations/nginx.ingress.kubernetes.io\/auth-tls-secret"),
                Field::of("ServiceAccount", "imagePullSecrets/name", false),
                Field::of("StorageClass", "parameters/secretName", false),
                Field::of("StorageClass", "parameters/adminSecretName", false),
                Field::of("StorageClass", "parameters/userSecretName", false),
                Field::of("StorageClass", "parameters/secretRef", false),
                Field::of("Role", "rules/resourceNames", false),
                Field::of("ClusterRole", "rules/resourceNames", false),
                Field {
                    group: Some("serving.knative.dev"),
                    ..Field::in_v1(
                        "Service",
                        "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
                        false,
                    )
                },
                Field::of("PersistentVolume", "spec/azureFile/secretName", false),
            ],
        )
    },
    named(
        None,
        Some("v1"),
        "Service",
        &[
            Field::in_group("apps", "StatefulSet", "spec/serviceName", false),
            ingress("spec/rules/http/paths/backend/serviceName"),
            ingress("spec/backend/serviceName"),
            ingress("spec/rules/http/paths/backend/service/name"),
            ingress("spec/defaultBackend/service/name"),
            Field::in_group(
                "apiregistration.k8s.io",
                "APIService",
                "spec/service/name",
                false,
            ),
            Field::in_group(
                WEBHOOKS,
                "ValidatingWebhookConfiguration",
                "webhooks/clientConfig/service",
                false,
            ),
            Field::in_group(
                WEBHOOKS,
                "MutatingWebhookConfiguration",
                "webhooks/clientConfig/service",
                false,
            ),
        ],
    ),
    Named {
        in_pods: &["priorityClassName"],
        pods: PODS,
        ..named(Some("scheduling.k8s.io"), Some("v1"), "PriorityClass", &[])
    },
    named(
        None,
        Some("v1"),
        "PersistentVolume",
        &[
            Field::of("PersistentVolumeClaim", "spec/volumeName", false),
            Field::of("ClusterRole", "rules/resourceNames", false),
        ],
    ),
    Named {
        in_pods: &["volumes/persistentVolumeClaim/claimName"],
        pods: PODS,
        ..named(None, Some("v1"), "PersistentVolumeClaim", &[])
    },
    named(None, None, "Deployment", SCALED),
    named(None, None, "StatefulSet", SCALED),
    named(
        Some(WEBHOOKS),
        None,
        "ValidatingAdmissionPolicy",
        &[Field::in_group(
            WEBHOOKS,
            "ValidatingAdmissionPolicyBinding",
            "spec/policyName",
            false,
        )],
    ),
    named(None, None, "ReplicaSet", SCALED),
    named(None, None, "ReplicationController", SCALED),
];
