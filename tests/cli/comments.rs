//! Branches of the example repository, and the comment that each gets.

use std::{fs, path::Path};

use trustweave::model::{
    bundle::Bundle,
    declaration::{BundleEndpoint, Envelope, TrustDomainSpec},
};

use super::{
    Repository,
    bundle::{DECLARED, STRANGER, attested, key},
    fresh_bundle,
};

const ONE: &str = "apps.cluster-1.devcluster.openshift.com";
const TWO: &str = "apps.cluster-2.devcluster.openshift.com";
const THREE: &str = "apps.cluster-3.devcluster.openshift.com";

fn declaration(trust_domain: &str) -> String {
    format!("trust-domains/{trust_domain}/trust-domain.yaml")
}

/// Copies a directory into a repository.
fn copy(from: &Path, repository: &Repository, to: &str) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{to}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), repository, &format!("{name}/"));
        } else {
            repository.write(&name, &fs::read_to_string(entry.path()).unwrap());
        }
    }
}

/// The example, its two trust domains with a bundle each.
struct Example {
    repository: Repository,
    bundles: [Bundle; 2],
}

impl Example {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/repo-layout");
        let repository = Repository(tempfile::TempDir::new().unwrap());
        copy(&root, &repository, "");
        for trust_domain in [ONE, TWO] {
            let path = declaration(trust_domain);
            let text = fs::read_to_string(repository.0.path().join(&path)).unwrap();
            let line = text
                .lines()
                .find(|line| line.contains("ssh-ed25519"))
                .unwrap();
            let signer = format!("    - {}", key(DECLARED).public_key());
            repository.replace(&path, line, &signer);
        }
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit();
        let example = Self {
            repository,
            bundles: [fresh_bundle(), fresh_bundle()],
        };
        for (trust_domain, bundle) in [ONE, TWO].into_iter().zip(&example.bundles) {
            let files = attested(
                trust_domain,
                example.endpoint(trust_domain),
                DECLARED,
                1,
                bundle,
            );
            example.repository.publish(trust_domain, &files);
        }
        example
    }

    fn endpoint(&self, trust_domain: &str) -> BundleEndpoint {
        let path = self.repository.0.path().join(declaration(trust_domain));
        let declared: Envelope<TrustDomainSpec> =
            serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        declared.spec.bundle_endpoint
    }

    /// Puts a publication of cluster-2's trust domain on the reviewed branch.
    fn publish_on_main(&self, seed: u8, serial: u64, bundle: &Bundle) {
        let files = attested(TWO, self.endpoint(TWO), seed, serial, bundle);
        for (name, content) in files {
            let content = String::from_utf8(content).unwrap();
            self.repository
                .write(&format!("trust-domains/{TWO}/{name}"), &content);
        }
    }

    /// The comment on what was changed since the last commit, its random keys by name.
    fn comment(&self, others: &[&Bundle]) -> String {
        self.repository
            .git(&["checkout", "--quiet", "-b", "change"]);
        self.repository.commit();
        let arguments = ["diff", "--base=main", "--head=change", "--output=markdown"];
        let mut comment = self.repository.run(&arguments).expect(1).stdout;
        for (number, bundle) in (1..).zip(self.bundles.iter().chain(others.iter().copied())) {
            // Digits, as a fingerprint has.
            let name = format!("{number}").repeat(12);
            comment = comment.replace(bundle.x509_authorities[0].key.short(), &name);
        }
        comment
    }
}

#[test]
fn a_third_cluster_joins() {
    let example = Example::new();
    let repository = &example.repository;
    let two = fs::read_to_string(repository.0.path().join(declaration(TWO))).unwrap();
    let agrees = |text: &str, peer: &str| {
        let also = |list: &str| format!("    {list}:\n      - {ONE}\n");
        ["import", "export"]
            .iter()
            .fold(text.to_owned(), |text, list| {
                text.replace(&also(list), &format!("{}      - {peer}\n", also(list)))
            })
    };
    let three = agrees(&two.replace("cluster-2", "cluster-3"), TWO);
    repository.write(&declaration(TWO), &agrees(&two, THREE));
    repository.write(&declaration(THREE), &three);
    repository.write(
        "clusters/cluster-3/kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../base/namespace\n  - \
         ../../base/frontend-client\npatches:\n  - path: federates-with.yaml\n",
    );
    repository.write(
        "clusters/cluster-3/federates-with.yaml",
        "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\nmetadata:\n  name: frontend-client\n  annotations:\n    \
         trustweave.dev/federates-with: all\n",
    );
    // Cluster-1 has not agreed yet.
    let edge = |peer: &str| format!("    - between:\n        - {peer}\n        - {THREE}\n");
    let edges = format!("  edges:\n{}{}", edge(TWO), edge(ONE));
    repository.replace("topology.yaml", "  edges:\n", &edges);
    insta::assert_snapshot!("comment-third-cluster", example.comment(&[]));
}

#[test]
fn an_edge_is_removed() {
    let example = Example::new();
    let topology = "topology.yaml";
    let edge = format!("  edges:\n    - between:\n        - {ONE}\n        - {TWO}\n");
    example.repository.replace(topology, &edge, "  edges: []\n");
    insta::assert_snapshot!("comment-removed-edge", example.comment(&[]));
}

#[test]
fn a_workload_is_edited() {
    let example = Example::new();
    let base = "base/frontend-client";
    example.repository.replace(
        &format!("{base}/workload/deployment.yaml"),
        "example-workloads:0.1.0",
        "example-workloads:0.2.0",
    );
    example.repository.replace(
        &format!("{base}/cluster-spiffe-id.yaml"),
        "app: frontend-client",
        "app: frontend",
    );
    insta::assert_snapshot!("comment-edited-workload", example.comment(&[]));
}

#[test]
fn a_bundle_is_forged() {
    let example = Example::new();
    let branch = format!("refs/heads/trustweave/{TWO}");
    example.repository.git(&["update-ref", "-d", &branch]);
    example.publish_on_main(DECLARED, 1, &example.bundles[1]);
    example.repository.commit();
    let forged = fresh_bundle();
    example.publish_on_main(STRANGER, 2, &forged);
    insta::assert_snapshot!("comment-forged-bundle", example.comment(&[&forged]));
}

#[test]
fn the_documentation_shows_a_real_comment() {
    let page = |path: &str| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(root.join(path)).unwrap()
    };
    let snapshot = page("tests/cli/snapshots/cli__comments__comment-third-cluster.snap");
    let (_, comment) = snapshot.split_once("\n---\n").unwrap();
    let documented = page("docs/diff.md");
    assert!(
        documented.contains(comment.trim()),
        "copy the snapshot into docs/diff.md"
    );
}
