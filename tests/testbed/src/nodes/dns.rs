//! The DNS of a cluster: its Services, the testbed's own names, and names below every trust domain.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::images::COREDNS;
use super::plan::{Addresses, OUTSIDE, ZONE};

/// A cluster that others can name.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) trust_domain: String,
    pub(super) node: Ipv4Addr,
}

/// A server block for each zone: within one block, plugins have an order of their own.
fn configuration(peers: &[Peer]) -> String {
    let mut hosts = format!("    {OUTSIDE} git.{ZONE}\n");
    let mut zones = String::new();
    for peer in peers {
        hosts.push_str(&format!("    {} {}.{ZONE}\n", peer.node, peer.name));
        // As the wildcard records of a cluster's ingress.
        zones.push_str(&format!(
            "{}:53 {{\n  errors\n  template IN A {{\n    answer \"{{{{ .Name }}}} 5 IN A {}\"\n  }}\n  \
             template IN ANY {{\n    rcode NOERROR\n  }}\n}}\n",
            peer.trust_domain, peer.node
        ));
    }
    format!(
        "cluster.local:53 in-addr.arpa:53 {{\n  errors\n  health :8181\n  ready :8182\n  \
         kubernetes cluster.local in-addr.arpa {{\n    ttl 5\n  }}\n}}\n\
         {ZONE}:53 {{\n  errors\n  hosts {{\n{hosts}    ttl 5\n  }}\n}}\n\
         {zones}\
         .:53 {{\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n"
    )
}

/// Everything that is applied to a cluster.
pub(super) fn objects(own: Addresses, peers: &[Peer]) -> Value {
    let metadata = json!({"name": "coredns", "namespace": "kube-system"});
    let labels = json!({"k8s-app": "kube-dns"});
    let role = "system:coredns";
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role},
                "rules": [
                    {
                        "apiGroups": [""],
                        "resources": ["endpoints", "services", "pods", "namespaces"],
                        "verbs": ["list", "watch"],
                    },
                    {
                        "apiGroups": ["discovery.k8s.io"],
                        "resources": ["endpointslices"],
                        "verbs": ["list", "watch"],
                    },
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
            },
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {"Corefile": configuration(peers)},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "serviceAccountName": "coredns",
                            "dnsPolicy": "Default",
                            "terminationGracePeriodSeconds": 1,
                            "containers": [{
                                "name": "coredns",
                                "image": COREDNS,
                                "args": ["-conf", "/etc/coredns/Corefile"],
                                "readinessProbe": {
                                    "httpGet": {"path": "/ready", "port": 8182},
                                    "periodSeconds": 1,
                                },
                                "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns"}],
                            }],
                            "volumes": [{"name": "configuration", "configMap": {"name": "coredns"}}],
                        },
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system"},
                "spec": {
                    "clusterIP": own.dns_service(),
                    "selector": labels,
                    "ports": [
                        {"name": "dns", "port": 53, "protocol": "UDP"},
                        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                    ],
                },
            },
        ],
    })
}
