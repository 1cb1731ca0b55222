//! How the agents get into their clusters: images, and `kubectl apply -k` of a kustomization on top of `deploy/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use trustweave_packaging::product::{
    EXAMPLE_WORKLOADS, PROGRAMS, Product, REGISTRY, TRUSTWEAVE, VERSION,
};

use super::NodeCluster;
use super::federation::{Federation, NAMESPACE};
use crate::access::write;
use crate::image::{Architecture, Tree, with_program};

/// What is installed besides the base of `deploy/`: directories, and the file of an example, in it.
const PARTS: [&str; 5] = [
    "overlay-rights.yaml",
    "bundle-source",
    "bundle-source-endpoint",
    "bundle-source-exec",
    "server-management",
];

/// How often the agents list the remote's references, in milliseconds.
const POLL: u64 = 1000;

impl Federation {
    /// The images that are published, given to every node.
    pub(super) async fn import_images(&self) -> anyhow::Result<()> {
        for (product, program) in [
            (TRUSTWEAVE, &self.plan.trustweave),
            (EXAMPLE_WORKLOADS, &self.plan.workloads),
        ] {
            self.import(product, program, VERSION).await?;
        }
        Ok(())
    }

    async fn import(&self, product: Product, program: &Path, tag: &str) -> anyhow::Result<()> {
        let archive = image(product, program, tag, self.nodes.directory())?;
        let clusters = self.nodes.clusters().iter();
        futures::future::try_join_all(clusters.map(|it| it.import(&archive))).await?;
        Ok(())
    }

    /// The images that the clusters run, and the sizes of their archives in bytes.
    pub fn images(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let products = [TRUSTWEAVE, EXAMPLE_WORKLOADS].into_iter();
        let sizes = products.map(|product| {
            let archive = archive(product, VERSION, self.nodes.directory());
            Ok((product.reference(), std::fs::metadata(archive)?.len()))
        });
        sizes.collect()
    }

    /// Installs the agents in all clusters, and returns when all pods are ready: how long each took from the start of
    /// its process, by pod.
    pub async fn install(&self) -> anyhow::Result<Vec<(String, Duration)>> {
        let clusters = self.nodes.clusters().iter();
        let installed = clusters.map(async |cluster| {
            let start_up = self.start_up(cluster.name());
            anyhow::Ok(tokio::try_join!(start_up, self.install_in(cluster, VERSION))?.0)
        });
        let times = futures::future::try_join_all(installed).await?;
        Ok(times.into_iter().flatten().collect())
    }

    /// Points the kustomization of every cluster at another tag of the agent's image, and applies it again. Returns
    /// when all pods have been replaced. The program is the same.
    pub async fn upgrade(&self, tag: &str) -> anyhow::Result<()> {
        self.import(TRUSTWEAVE, &self.plan.trustweave, tag).await?;
        let clusters = self.nodes.clusters().iter();
        let upgrades = clusters.map(|cluster| self.install_in(cluster, tag));
        futures::future::try_join_all(upgrades).await?;
        Ok(())
    }

    async fn install_in(&self, cluster: &NodeCluster, tag: &str) -> anyhow::Result<()> {
        let directory = self.agent_directory(cluster.name());
        self.write_kustomization(cluster, tag, &directory)?;
        let path = directory.to_str().context("a path that is not UTF-8")?;
        cluster
            .kubectl(&["apply", "--server-side", "--kustomize", path])
            .await?;
        cluster
            .until_rolled_out(NAMESPACE, "deployment/trustweave")
            .await
    }

    /// The kustomization of a cluster's own that `deploy/README.md` asks for, next to a copy of `deploy/`.
    fn write_kustomization(
        &self,
        cluster: &NodeCluster,
        tag: &str,
        directory: &Path,
    ) -> anyhow::Result<()> {
        copy_directory(&self.plan.project.join("deploy"), &directory.join("deploy"))?;
        let configuration = json!({
            "apiVersion": "trustweave.dev/v1alpha1",
            "kind": "AgentConfig",
            "cluster": cluster.name(),
            "trustDomain": cluster.spire.trust_domain(),
            "git": {
                "url": self.nodes.git_url(),
                "stateDir": "/var/lib/trustweave",
                "pollMilliseconds": POLL,
            },
            "signing": {"keyFile": "/etc/trustweave/signing/id_ed25519"},
            "workloadApi": {"socket": "/spiffe-workload-api/spire-agent.sock"},
        });
        let parts = PARTS.iter().map(|part| format!("deploy/{part}"));
        let resources: Vec<String> = std::iter::once("deploy".to_owned()).chain(parts).collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": resources,
            "components": ["deploy/workload-api"],
            "images": [{"name": format!("{REGISTRY}/{}", TRUSTWEAVE.name), "newTag": tag}],
            "generatorOptions": {"disableNameSuffixHash": true},
            "configMapGenerator": [{
                "name": "trustweave", "namespace": NAMESPACE, "files": ["config.yaml"],
            }],
            "secretGenerator": [{
                "name": "trustweave-signing", "namespace": NAMESPACE, "files": ["id_ed25519"],
            }],
        });
        // JSON is YAML.
        for (file, content) in [
            ("config.yaml", configuration),
            ("kustomization.yaml", kustomization),
        ] {
            write(&directory.join(file), &format!("{content:#}\n"))?;
        }
        Ok(())
    }
}

fn archive(product: Product, tag: &str, directory: &Path) -> PathBuf {
    directory.join(format!("{}-{tag}.tar", product.name))
}

/// The image that is published, with any program in it, linked statically or not.
fn image(product: Product, program: &Path, tag: &str, directory: &Path) -> anyhow::Result<PathBuf> {
    let archive = archive(product, tag, directory);
    let tree = with_program(
        Tree::base(),
        &format!("{PROGRAMS}/{}", product.program),
        program,
    )?;
    let platforms = [(Architecture::OWN, tree)].into();
    let mut image = product.image();
    image.reference = format!("{REGISTRY}/{}:{tag}", product.name);
    image
        .write(&platforms, &archive)
        .with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(archive)
}

fn copy_directory(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in
        std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?
    {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_directory(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}
