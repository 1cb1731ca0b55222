//! The model of SPIRE in which peers' lives are checked does what the real one does.

// What only whole histories need.
#[allow(dead_code, reason = "the model's own tests use the rest")]
#[path = "../model/keys.rs"]
mod keys;
#[allow(dead_code, reason = "the model's own tests use the rest")]
#[path = "../model/spire.rs"]
mod spire;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};
use trustweave_testbed::{Cluster, ClusterSpec, Testbed, wait_until};

use super::rules::{Rule, shows};

use self::{
    keys::{PEERS, bundle},
    spire::{Keys, Spire},
};

const CLASS: &str = "class";

/// A pass of the controller manager, and what a busy machine adds.
const SOON: Duration = Duration::from_mins(1);

/// What SPIRE holds, as far as the model knows it too.
#[derive(Debug, PartialEq)]
struct State {
    rows: BTreeMap<String, Keys>,
    urls: BTreeMap<String, String>,
    entries: BTreeMap<String, BTreeSet<String>>,
    failures: BTreeMap<String, u64>,
}

/// The objects of a real cluster, and the model of its SPIRE.
struct Both<'a> {
    cluster: &'a Cluster,
    model: Spire,
    cftds: BTreeMap<&'static str, Value>,
    registrations: BTreeMap<&'static str, Value>,
    passes: u32,
}

fn cftd(peer: &str, fragment: u32, bundle: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterFederatedTrustDomain",
        "metadata": {"name": peer},
        "spec": {
            "className": CLASS, "trustDomain": peer,
            "bundleEndpointURL": format!("https://{peer}.invalid/#{fragment}"),
            "bundleEndpointProfile": {
                "type": "https_spiffe",
                "endpointSPIFFEID": format!("spiffe://{peer}/spire/server"),
            },
        },
    });
    if let Some(bundle) = bundle {
        object["spec"]["trustDomainBundle"] = bundle.into();
    }
    object
}

fn document(peer: usize, mask: u8) -> String {
    let bundle = bundle(peer, mask, None).with_refresh_hint(None);
    String::from_utf8(bundle.canonical()).unwrap()
}

fn registration(name: &str, federates_with: &[&str]) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID",
        "metadata": {"name": name},
        "spec": {
            "className": CLASS,
            "spiffeIDTemplate": format!("spiffe://{{{{ .TrustDomain }}}}/model/{name}"),
            "podSelector": {"matchLabels": {"app": "app"}},
            "federatesWith": federates_with,
        },
    })
}

impl Both<'_> {
    /// A relationship as somebody wants it; `None` deletes it.
    async fn relate(&mut self, peer: &'static str, cftd: Option<Value>) {
        if let Some(cftd) = cftd {
            self.cluster.kubectl_apply(&cftd.to_string()).await.unwrap();
            self.cftds.insert(peer, cftd);
        } else {
            let kind = "clusterfederatedtrustdomain";
            self.cluster.kubectl(&["delete", kind, peer]).await.unwrap();
            self.cftds.remove(peer);
        }
    }

    async fn register(&mut self, name: &'static str, federates_with: &[&str]) {
        let object = registration(name, federates_with);
        self.cluster
            .kubectl_apply(&object.to_string())
            .await
            .unwrap();
        self.registrations.insert(name, object);
    }

    fn modelled(&self, stats: &BTreeMap<String, Value>) -> State {
        let failures = stats.iter();
        let relationships = self.model.relationships.iter();
        let entries = self.model.entries.iter();
        State {
            rows: self.model.rows.clone(),
            urls: relationships
                .map(|(peer, it)| (peer.clone(), it.url.clone()))
                .collect(),
            entries: entries
                .map(|((name, _), federates)| (name.clone(), federates.clone()))
                .collect(),
            failures: failures
                .map(|(name, stats)| (name.clone(), stats["entryFailures"].as_u64().unwrap()))
                .collect(),
        }
    }

    async fn real(&self) -> anyhow::Result<State> {
        let spire = &self.cluster.spire;
        let mut state = State {
            rows: BTreeMap::new(),
            urls: BTreeMap::new(),
            entries: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        for peer in PEERS {
            let Some(row) = spire.federated_bundle(peer).await? else {
                continue;
            };
            let keys = row["keys"].as_array().into_iter().flatten();
            let keys = keys.filter_map(|key| Some(key["x5c"][0].as_str()?.to_owned()));
            state.rows.insert(peer.to_owned(), keys.collect());
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for relationship in spire.federation().await? {
            let url = text(&relationship["bundle_endpoint_url"]);
            state.urls.insert(text(&relationship["trust_domain"]), url);
        }
        for entry in spire.entries().await? {
            let path = text(&entry["spiffe_id"]["path"]);
            let Some(name) = path.strip_prefix("/model/") else {
                continue;
            };
            let names = entry["federates_with"].as_array().into_iter().flatten();
            let names = names.map(text).collect();
            state.entries.insert(name.to_owned(), names);
        }
        for name in self.registrations.keys() {
            let arguments = ["get", "clusterspiffeid", name, "--output=json"];
            let object = self.cluster.kubectl(&arguments).await?;
            let object: Value = serde_json::from_str(&object)?;
            let counts = &object["status"]["stats"];
            anyhow::ensure!(counts.is_object(), "{name} was not looked at yet");
            // The field is left out when it is zero.
            let failures = counts["entryFailures"].as_u64().unwrap_or(0);
            state.failures.insert((*name).to_owned(), failures);
        }
        Ok(state)
    }

    /// Lets both take a pass, and compares what they hold then.
    async fn agree(&mut self, step: &str) {
        // Another trust domain's row tells that the pass over relationships is over.
        self.passes += 1;
        let mask = if self.passes.is_multiple_of(2) { 1 } else { 2 };
        let told = cftd(PEERS[1], self.passes, Some(&document(1, mask)));
        self.relate(PEERS[1], Some(told)).await;
        let cftds: Vec<_> = self.cftds.values().cloned().collect();
        self.model.reconcile_relationships(&cftds);
        let registrations = self.registrations.values().map(|it| (it, 1));
        let stats = self.model.reconcile_entries(registrations);
        let expected = self.modelled(&stats);
        wait_until(
            &format!("SPIRE to be as the model: {step}"),
            SOON,
            async || {
                let real = self.real().await?;
                anyhow::ensure!(real == expected, "it is {real:#?}, not {expected:#?}");
                Ok(Some(()))
            },
        )
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_does_what_spire_does() {
    let _shown = shows(&[Rule::Model]);
    let spec = ClusterSpec {
        name: "one".to_owned(),
        trust_domain: "a.test".to_owned(),
        class_name: CLASS.to_owned(),
        spire_namespace: "spire".to_owned(),
        spire_version: None,
        ca_ttl: None,
        roots_only: false,
    };
    let testbed = Testbed::start(&[spec], &super::progress).await.unwrap();
    let cluster = &testbed.clusters()[0];
    let pod = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
        "spec": {
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    cluster.kubectl_apply(&pod.to_string()).await.unwrap();
    let [peer, _, other] = PEERS;
    let mut both = Both {
        cluster,
        model: Spire::default(),
        cftds: BTreeMap::new(),
        registrations: BTreeMap::new(),
        passes: 0,
    };
    let (first, second) = (document(0, 1), document(0, 6));

    both.relate(peer, Some(cftd(peer, 1, Some(&first)))).await;
    both.register("alone", &[]).await;
    both.register("one", &[peer]).await;
    both.agree("a relationship is created with a bundle").await;

    both.relate(peer, Some(cftd(peer, 1, Some(&second)))).await;
    both.agree("a bundle alone changes").await;

    both.relate(peer, Some(cftd(peer, 2, Some(&second)))).await;
    both.agree("the fragment changes with it").await;

    both.relate(peer, Some(cftd(peer, 3, None))).await;
    both.agree("the fragment changes without a bundle").await;

    both.register("one", &[peer, other]).await;
    both.register("new", &[other]).await;
    both.agree("registrations name a trust domain without a bundle")
        .await;

    let empty = r#"{"keys": [], "spiffe_refresh_hint": 60}"#;
    both.relate(peer, Some(cftd(peer, 4, Some(empty)))).await;
    both.agree("an empty bundle is pushed").await;

    both.relate(peer, Some(cftd(peer, 5, Some(&first)))).await;
    both.agree("a bundle is pushed over it").await;

    for (index, invalid) in [
        "{}",
        "no JSON",
        r#"{"keys": [], "spiffe_refresh_hint": "60"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        both.relate(peer, Some(cftd(peer, 6, Some(invalid)))).await;
        both.agree("a bundle is invalid").await;
        if index == 0 {
            both.relate(peer, Some(cftd(peer, 6, Some(&second)))).await;
            both.agree("it is valid again").await;
        }
    }

    both.relate(peer, None).await;
    both.agree("the relationship is deleted").await;

    both.relate(other, Some(cftd(other, 1, Some(&document(2, 1)))))
        .await;
    both.agree("the trust domain without a bundle has one now")
        .await;
}
