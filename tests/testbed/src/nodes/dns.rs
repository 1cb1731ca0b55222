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
    let hosts = peers
        .iter()
        .map(|peer| format!("    {} {}.{ZONE}\n", peer.node, peer.name));
    let hosts: String = hosts.collect();
    let zones: String = peers.iter().map(trust_domain).collect();
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
  errors
  health :8181
  ready :8182
  kubernetes cluster.local in-addr.arpa {{
    ttl 5
  }}
}}
{ZONE}:53 {{
  errors
  hosts {{
    {OUTSIDE} git.{ZONE}
{hosts}    ttl 5
  }}
}}
{zones}.:53 {{
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"
    )
}

/// Every name below a trust domain leads to its node, as the wildcard records of a cluster's ingress do.
fn trust_domain(peer: &Peer) -> String {
    format!(
        "{}:53 {{
  errors
  template IN A {{
    answer \"{{{{ .Name }}}} 5 IN A {}\"
  }}
  template IN ANY {{
    rcode NOERROR
  }}
}}
",
        peer.trust_domain, peer.node
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
