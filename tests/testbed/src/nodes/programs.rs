//! The programs of a node that is a whole cluster: a control plane, a container runtime, a kubelet and a proxy.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::images::PAUSE;
use super::node::Node;
use super::spire::SOCKETS;
use crate::access::{kubeconfig, write};
use crate::binaries::{Binaries, NodeBinaries};
use crate::control_plane::{self, ADMIN_TOKEN};
use crate::credentials::{ApiServerCredentials, CertificateFiles, ClusterAuthority};
use crate::process::{Program, arguments, flag};

/// The port of the API server on the node.
pub(super) const API_PORT: u16 = 6443;

/// Where the API server finds etcd, on the node.
const ETCD: &str = "http://127.0.0.1:2379";

/// The socket of the container runtime, on the node.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// What the programs of a node share: addresses, credentials, and files of configuration.
pub(super) struct Programs<'a> {
    node: &'a Node,
    binaries: &'a Binaries,
    node_binaries: &'a NodeBinaries,
    credentials: ApiServerCredentials,
    kubelet_client: CertificateFiles,
    kubelet_server: CertificateFiles,
    /// The certificate authority, as PEM.
    pub(super) authority: String,
    configuration: PathBuf,
}

impl<'a> Programs<'a> {
    /// Writes credentials and configurations.
    pub(super) fn prepare(
        node: &'a Node,
        binaries: &'a Binaries,
        node_binaries: &'a NodeBinaries,
    ) -> anyhow::Result<Self> {
        let addresses = node.addresses;
        let pki = node.directory.join("pki");
        let authority = ClusterAuthority::new(&pki)?;
        let names = [
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let mut names = names.map(str::to_owned).to_vec();
        names.push(addresses.node().to_string());
        names.push(addresses.api_service().to_string());
        let credentials = authority.api_server(&names)?;
        let names = [node.name.clone(), addresses.node().to_string()];
        let configuration = node.directory.join("configuration");
        std::fs::create_dir_all(&configuration).context("make a directory")?;
        let programs = Self {
            node,
            binaries,
            node_binaries,
            kubelet_client: authority.client(
                "kubelet-client",
                "kube-apiserver",
                "system:masters",
            )?,
            kubelet_server: authority.server("kubelet", &names)?,
            authority: std::fs::read_to_string(&credentials.authority)?,
            credentials,
            configuration,
        };
        programs.write_identities()?;
        Ok(programs)
    }

    /// Tokens for everybody who talks to the API server, and kubeconfigs with them.
    fn write_identities(&self) -> anyhow::Result<()> {
        let name = &self.node.name;
        let identities = [
            ("admin", ADMIN_TOKEN, "admin", "system:masters"),
            (
                "kubelet",
                "testbed-kubelet",
                &format!("system:node:{name}"),
                "system:nodes",
            ),
            ("kube-proxy", "testbed-kube-proxy", "system:kube-proxy", ""),
        ];
        let mut tokens = Vec::new();
        for (file, token, user, group) in identities {
            tokens.push(format!("{token},{user},{user},{group}\n"));
            let url = format!("https://127.0.0.1:{API_PORT}");
            let content = kubeconfig(&url, &self.authority, token, "default");
            write(&self.kubeconfig(file), &content.to_string())?;
        }
        write(&self.tokens(), &tokens.concat())
    }

    fn tokens(&self) -> PathBuf {
        self.configuration.join("tokens.csv")
    }

    fn kubeconfig(&self, who: &str) -> PathBuf {
        self.configuration.join(format!("{who}.kubeconfig"))
    }

    pub(super) fn etcd(&self) -> Program {
        let data = Path::new("/var/lib/etcd");
        let arguments = control_plane::etcd(data, ETCD, "http://127.0.0.1:2380");
        self.node
            .program("etcd", &self.binaries.etcd(), arguments, &[])
    }

    pub(super) fn api_server(&self) -> Program {
        let Self {
            credentials,
            kubelet_client,
            ..
        } = self;
        let addresses = self.node.addresses;
        let mut arguments = control_plane::api_server(credentials, &self.tokens(), ETCD, API_PORT);
        arguments.extend(arguments![
            "--bind-address=0.0.0.0",
            format!("--advertise-address={}", addresses.node()),
            "--endpoint-reconciler-type=lease",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            format!("--service-cluster-ip-range={}", addresses.services()),
            flag("--kubelet-certificate-authority=", &credentials.authority),
            flag("--kubelet-client-certificate=", &kubelet_client.certificate),
            flag("--kubelet-client-key=", &kubelet_client.key),
            "--kubelet-preferred-address-types=InternalIP",
        ]);
        self.node.program(
            "kube-apiserver",
            &self.binaries.kube_apiserver(),
            arguments,
            &[],
        )
    }

    pub(super) fn controllers(&self) -> Program {
        let mut arguments =
            control_plane::controllers(&self.kubeconfig("admin"), &self.credentials);
        arguments.push("--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".into());
        let program = self.binaries.kube_controller_manager();
        self.node
            .program("kube-controller-manager", &program, arguments, &[])
    }

    pub(super) fn scheduler(&self) -> Program {
        let arguments = control_plane::scheduler(&self.kubeconfig("admin"));
        let program = self.binaries.kube_scheduler();
        self.node
            .program("kube-scheduler", &program, arguments, &[])
    }

    pub(super) fn containerd(&self) -> anyhow::Result<Program> {
        let network = self.configuration.join("cni");
        std::fs::create_dir_all(&network).context("make a directory")?;
        let conflist = network_configuration(self.node);
        write(&network.join("10-testbed.conflist"), &conflist.to_string())?;
        let path = self.configuration.join("containerd.toml");
        let plugins = self.node_binaries.network_plugins();
        write(&path, &containerd_configuration(plugins, &network))?;
        let directory = self.node_binaries.containerd();
        let arguments = arguments!["--config", path];
        let program = directory.join("containerd");
        Ok(self
            .node
            .program("containerd", &program, arguments, &[directory]))
    }

    pub(super) fn kubelet(&self) -> anyhow::Result<Program> {
        let path = self.configuration.join("kubelet.yaml");
        write(&path, &self.kubelet_configuration().to_string())?;
        let arguments = arguments![
            flag("--config=", &path),
            flag("--kubeconfig=", &self.kubeconfig("kubelet")),
            format!("--hostname-override={}", self.node.name),
            format!("--node-ip={}", self.node.addresses.node()),
        ];
        Ok(self
            .node
            .program("kubelet", &self.node_binaries.kubelet(), arguments, &[]))
    }

    pub(super) fn proxy(&self) -> anyhow::Result<Program> {
        let addresses = self.node.addresses;
        let path = self.configuration.join("kube-proxy.yaml");
        let configuration = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.node.name,
            "clusterCIDR": addresses.pods(),
            // Requests that follow a rollout find the new pod.
            "nftables": {"minSyncPeriod": "100ms"},
            "nodePortAddresses": [format!("{}/32", addresses.node())],
            "clientConnection": {"kubeconfig": self.kubeconfig("kube-proxy")},
            // The limits belong to the whole machine.
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
        });
        write(&path, &configuration.to_string())?;
        let arguments = arguments![flag("--config=", &path)];
        let program = self.node_binaries.kube_proxy();
        Ok(self.node.program("kube-proxy", &program, arguments, &[]))
    }

    /// What pods that mount the Workload API get it from.
    pub(super) fn csi_driver(&self) -> Program {
        let arguments = arguments!["-node", &self.node.name, "-sockets", SOCKETS];
        let program = self.node_binaries.csi_driver();
        self.node.program("csi-driver", &program, arguments, &[])
    }

    fn kubelet_configuration(&self) -> Value {
        let addresses = self.node.addresses;
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": false,
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.credentials.authority},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.kubelet_server.certificate,
            "tlsPrivateKeyFile": self.kubelet_server.key,
            "readOnlyPort": 0,
            "clusterDNS": [addresses.dns_service()],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            "failSwapOn": false,
            // The machine's, which others use too.
            "evictionHard": {
                "memory.available": "64Mi", "nodefs.available": "64Mi", "imagefs.available": "64Mi",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "nodeStatusUpdateFrequency": "5s",
            "serializeImagePulls": false,
            "makeIPTablesUtilChains": false,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        })
    }
}

fn network_configuration(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "testbed",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": node.addresses.pods(), "gateway": node.addresses.pod_gateway()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn containerd_configuration(network_plugins: &Path, network: &Path) -> String {
    format!(
        r"version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.internal.v1.opt']
[grpc]
address = '{CONTAINERD}'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
# A score below our own can't be set without CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{}']
conf_dir = '{}'
use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins.'io.containerd.nri.v1.nri']
disable = true
",
        network_plugins.display(),
        network.display()
    )
}
