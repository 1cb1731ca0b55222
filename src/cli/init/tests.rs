//! What is proposed, and that it is what `check` accepts.

use serde_json::{Value, json};

use super::*;
use crate::{
    federation::installation::{Objects, candidates, read},
    model::{diagnostic::Diagnostic, repository::Tree, trust_domain::TrustDomain},
    reconcile::desired,
};

const SIGNER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr trustweave@a";

/// A cluster that trusts others by hand.
fn known(name: &str, trusts: &[&str]) -> Known {
    let own = format!("{name}.test");
    let relationship = |peer: &&str| {
        json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
            "metadata": {"name": format!("{peer}-federation"), "creationTimestamp": "2026"},
            "spec": {
                "trustDomain": peer, "className": "spire",
                "bundleEndpointURL": format!("https://federation.{peer}"),
                "bundleEndpointProfile": {
                    "type": "https_spiffe", "endpointSPIFFEID": format!("spiffe://{peer}/spire/server"),
                },
            },
        })
    };
    let server = json!({"server": {
        "trust_domain": own,
        "federation": {"bundle_endpoint": {
            "port": 8443, "refresh_hint": "60s", "profile": [{"https_spiffe": {}}],
        }},
    }});
    let metadata = |name: &str| json!({"name": name, "namespace": "spire"});
    let template = json!({
        "metadata": {"labels": {"app": "server"}},
        "spec": {
            "containers": [{"name": "spire-server"}],
            "volumes": [{"configMap": {"name": "configuration"}}],
        },
    });
    let objects = Objects {
        stateful_sets: vec![
            json!({"metadata": metadata("server"), "spec": {"template": template}}),
        ],
        config_maps: vec![json!({
            "metadata": metadata("configuration"), "data": {"server.conf": server.to_string()},
        })],
        relationships: trusts.iter().map(relationship).collect(),
        registrations: vec![json!({
            "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
            "metadata": {"name": "workload", "uid": "1"},
            "spec": {"className": "spire", "spiffeIDTemplate": "spiffe://x", "federatesWith": trusts},
        })],
        ..Objects::default()
    };
    let installation = read(&objects, &candidates(&objects.stateful_sets)[0]);
    Known {
        cluster: Some(Found::new(
            ClusterName::parse(name).unwrap(),
            "the command line",
        )),
        trust_domain: installation.trust_domain.clone(),
        installation: Some(installation),
        ..Known::default()
    }
}

fn checked(
    files: impl IntoIterator<Item = (RepoPath, String)>,
) -> (Vec<Diagnostic>, crate::model::declarations::Declarations) {
    let mut tree = Tree::default();
    for (path, content) in files {
        tree.insert(path, Entry::File(content.into_bytes().into()));
    }
    let (declarations, diagnostics) = desired::check(&tree, super::super::check::now());
    (diagnostics, declarations)
}

#[test]
fn what_is_not_known_is_told_and_does_not_pass() {
    let (text, notes) = declaration(&Known::default());
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(
        notes.iter().any(|it| it.contains("deploy/README.md")),
        "{notes:?}"
    );
    let path = RepoPath::parse("trust-domains/a.test/trust-domain.yaml").unwrap();
    let (diagnostics, _) = checked([(path, text)]);
    assert!(
        diagnostics.iter().any(Diagnostic::is_error),
        "{diagnostics:?}"
    );
}

#[test]
fn a_cluster_alone_proposes_its_declaration() {
    let mut known = known("a", &["b.test"]);
    known.signer = Some(Found::new(SIGNER.to_owned(), "the status of the GitSync"));
    let (text, notes) = declaration(&known);
    insta::assert_snapshot!(text);
    insta::assert_snapshot!(notes.join("\n"));
}

#[test]
fn clusters_that_federate_propose_a_repository_that_check_accepts() {
    // a and b trust each other, c trusts a alone, and b trusts somebody who was not asked.
    let all = [
        known("a", &["b.test"]),
        known("b", &["a.test", "elsewhere.test"]),
        known("c", &["a.test"]),
    ];
    let proposed = repository(&all);
    let files = proposed.files.iter();
    let shown: Vec<_> = files
        .map(|(path, content)| format!("=== {path}\n{content}"))
        .collect();
    let shown = shown.concat();
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!(proposed.notes.join("\n"));

    let (unsigned, _) = checked(proposed.files.clone());
    let messages: Vec<_> = unsigned.iter().map(|it| it.message.as_str()).collect();
    assert!(
        unsigned.len() == 3 && messages.iter().all(|it| it.starts_with("without a signer")),
        "{messages:?}"
    );
    let signed = proposed.files.into_iter().map(|(path, content)| {
        (
            path,
            content.replace("signers: []", &format!("signers: ['{SIGNER}']")),
        )
    });
    let (diagnostics, declarations) = checked(signed);
    assert_eq!(diagnostics, []);
    let edges = declarations.topology.edges();
    let edges: std::collections::BTreeSet<_> = edges
        .iter()
        .map(|it| (it.importer.as_str(), it.exporter.as_str()))
        .collect();
    assert_eq!(
        edges.into_iter().collect::<Vec<_>>(),
        [
            ("a.test", "b.test"),
            ("b.test", "a.test"),
            ("c.test", "a.test")
        ]
    );
    let of = |name: &str| &declarations.trust_domains[&TrustDomain::parse(name).unwrap()];
    assert_eq!(of("c.test").consent.export.len(), 0);
    assert_eq!(of("a.test").consent.export.len(), 2);
}

#[test]
fn what_is_there_is_never_changed() {
    let directory = tempfile::TempDir::new().unwrap();
    let proposed = repository(&[known("a", &["b.test"]), known("b", &[])]);
    assert!(!write(directory.path(), &proposed, |_| Ok(false)).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(write(directory.path(), &proposed, |_| Ok(true)).unwrap());
    // Again: nothing to do.
    assert!(write(directory.path(), &proposed, |_| Ok(true)).unwrap());
    let topology = directory.path().join("topology.yaml");
    let overlay = directory.path().join("clusters/a/kustomization.yaml");
    fs::write(&topology, "mine\n").unwrap();
    fs::remove_file(&overlay).unwrap();
    assert!(!write(directory.path(), &proposed, |_| Ok(true)).unwrap());
    assert_eq!(fs::read_to_string(&topology).unwrap(), "mine\n");
    assert!(!overlay.exists(), "all or nothing");
}

#[test]
fn a_chart_is_told_what_it_lacks() {
    let mut known = known("a", &[]);
    let installation = known.installation.as_mut().unwrap();
    let before: Value = json!(declaration::chart_values(installation));
    assert_eq!(before, Value::Null);
    installation.distribution.value = crate::model::declaration::Distribution::Helm;
    insta::assert_snapshot!(declaration::chart_values(installation).unwrap());
}
