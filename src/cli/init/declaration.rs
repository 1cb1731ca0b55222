//! The proposed `trust-domain.yaml`.

use super::{live::Known, text::Text};
use crate::{
    federation::installation::{Found, Installation, configuration::Peer},
    model::{
        bundle_endpoint::{Expose, IngressOptions, LoadBalancerOptions, Profile},
        declaration::{BundleSource, Consent, Distribution, Server},
        trust_domain::{ClusterName, SpiffeId},
    },
};

/// What is proposed for a trust domain.
#[derive(Debug)]
pub(super) struct Proposal<'a> {
    /// The cluster that the rest is known from.
    pub(super) known: &'a Known,
    /// The other clusters of the same trust domain.
    pub(super) others: Vec<ClusterName>,
    /// Where peers poll its bundle today, as their relationships say.
    pub(super) polled: Option<Found<Peer>>,
    /// With whom it federates today.
    pub(super) consent: Consent,
    /// Whether nobody knows who trusts it: only its own cluster was asked.
    pub(super) alone: bool,
}

impl Proposal<'_> {
    /// The file, and what it lacks.
    pub(super) fn write(&self, notes: &mut Vec<String>) -> String {
        let mut text = Text::default();
        let known = self.known;
        let trust_domain = known.trust_domain.as_ref().map(|it| it.value.as_str());
        let path = trust_domain.unwrap_or("<trust-domain>");
        text.comment(0, &format!("trust-domains/{path}/trust-domain.yaml"));
        text.line(0, "apiVersion: trustweave.dev/v1alpha1");
        text.line(0, "kind: TrustDomain");
        text.line(0, "metadata:");
        if let Some(found) = &known.trust_domain {
            text.comment(1, &format!("From {}.", found.place));
        }
        let missing = "the trust domain is not known: say it with --trust-domain";
        required(&mut text, 1, "name", trust_domain, missing, notes);
        text.line(0, "spec:");
        self.clusters(&mut text, notes);
        self.spire(&mut text, notes);
        self.endpoint(&mut text, notes);
        self.signers(&mut text, notes);
        self.consent(&mut text);
        text.finish()
    }

    fn clusters(&self, text: &mut Text, notes: &mut Vec<String>) {
        text.line(1, "clusters:");
        let found = self.known.cluster.as_ref();
        if let Some(found) = found {
            text.comment(2, &format!("From {}.", found.place));
        }
        let name = found.map(|it| it.value.as_str());
        let missing = "the cluster's name is not known: say it with --cluster";
        required(text, 2, "- name", name, missing, notes);
        if !self.others.is_empty() {
            text.line(3, "publisher: true");
            for other in &self.others {
                text.field(2, "- name", other.as_str());
            }
        }
    }

    fn spire(&self, text: &mut Text, notes: &mut Vec<String>) {
        text.line(1, "spire:");
        if let (None, Some(said)) = (&self.known.installation, &self.known.said) {
            text.comment(2, &format!("From {}.", said.place));
            text.field(2, "distribution", name_of(said.distribution));
            text.field(2, "namespace", &said.namespace);
            text.field(2, "className", &said.class_name);
            return;
        }
        let Some(installation) = &self.known.installation else {
            text.line(2, "distribution:  # ztwim, helm or custom");
            text.line(2, "namespace:     # where the SPIRE server runs");
            text.line(2, "className:     # what its controller manager reconciles");
            notes.push("`spire` is not known: distribution, namespace and className".to_owned());
            return;
        };
        let distribution = &installation.distribution;
        text.comment(2, &format!("{}.", capital(&distribution.place)));
        text.field(2, "distribution", name_of(distribution.value));
        text.field(2, "namespace", &installation.namespace);
        let class_name = installation.class_name.as_ref();
        if let Some(found) = class_name {
            text.comment(2, &format!("From {}.", found.place));
        }
        let class_name = class_name.map(|it| it.value.as_str());
        // Why it is not known was told by who looked for it.
        required(text, 2, "className", class_name, "", notes);
        server(text, &installation.server);
        bundle_source(text, &installation.bundle_source);
    }

    fn endpoint(&self, text: &mut Text, notes: &mut Vec<String>) {
        let installation = self.known.installation.as_ref();
        let configured = installation.and_then(|it| it.configuration.endpoint.as_ref());
        let exposures = installation.map_or(&[][..], |it| &it.exposures);
        for exposure in exposures {
            if let Some(problem) = &exposure.problem {
                notes.push(format!("{}: {problem}", exposure.place));
            }
        }
        let of_peers = self.polled.as_ref();
        let exposed = exposures.first().filter(|_| configured.is_some());
        let said = self.known.endpoint.as_ref();
        let url = of_peers
            .map(|peer| (peer.value.url.clone(), peer.place.clone()))
            .or_else(|| said.map(|it| (it.value.1.clone(), it.place.clone())))
            .or_else(|| exposed.map(|it| (it.url.clone(), it.place.clone())));
        let Some((url, place)) = url else {
            let why = if configured.is_none() {
                "The server serves no bundle endpoint: peers learn the bundle from git alone."
            } else {
                notes.push(
                    "the bundle endpoint is served, but no Route, Ingress, TLSRoute or LoadBalancer leads \
                     to it: say under which URL peers reach it, or leave `none`"
                        .to_owned(),
                );
                "Nothing leads to the endpoint from outside: peers learn the bundle from git alone."
            };
            text.comment(1, why);
            text.line(1, "bundleEndpoint: none");
            return;
        };
        if of_peers.is_some()
            && let Some(other) = exposures.first()
            && exposures.iter().all(|it| it.url != url)
        {
            notes.push(format!(
                "peers poll {url} ({place}), but {} leads to {}: the declaration keeps what peers poll",
                other.place, other.url
            ));
        }
        text.comment(1, &format!("From {place}."));
        text.line(1, "bundleEndpoint:");
        let profile = of_peers
            .map(|peer| peer.value.profile)
            .or_else(|| said.map(|it| it.value.0))
            .or_else(|| configured.map(|it| it.value.profile));
        let own = self.known.trust_domain.as_ref();
        let own = own.map(|it| SpiffeId::spire_server(&it.value));
        let id = match of_peers {
            Some(peer) => peer.value.spiffe_id.clone(),
            None => own.filter(|_| profile == Some(Profile::HttpsSpiffe)),
        };
        if let Some(profile) = profile {
            text.field(2, "profile", profile.as_str());
        }
        text.field(2, "url", &url);
        if let Some(id) = id {
            text.field(2, "spiffeID", id.as_str());
        }
        if let Some(hint) = configured.and_then(|it| it.value.refresh_hint) {
            text.line(2, &format!("refreshHint: {hint}"));
        }
        let leading = exposures.iter().find(|it| it.url == url);
        if let Some(exposure) = leading.or(exposed) {
            text.comment(
                2,
                &format!(
                    "The agent keeps the endpoint with `manage: true` and `expose: {}`; see docs/server.md.",
                    expose(&exposure.expose)
                ),
            );
        }
    }

    fn signers(&self, text: &mut Text, notes: &mut Vec<String>) {
        if let Some(found) = &self.known.signer {
            text.comment(1, &format!("From {}.", found.place));
            text.line(1, "signers:");
            text.line(2, &format!("- {}", found.value));
            return;
        }
        notes.push(
            "the signer is not known: the agent has not reported its key yet. Install and start it \
             (deploy/README.md), and ask again, or put the public half of its key into `signers`"
                .to_owned(),
        );
        text.comment(
            1,
            "The public half of the agent's key, which the status of its GitSync shows once it runs.",
        );
        text.line(1, "signers: []");
    }

    fn consent(&self, text: &mut Text) {
        text.comment(
            1,
            "Trust domains by name; an edge of the topology is active once both sides consent.",
        );
        text.line(1, "consent:");
        if self.alone {
            text.comment(
                2,
                "Whom this cluster trusts today; who trusts it can't be seen from here.",
            );
        }
        for (list, names) in [
            ("import", &self.consent.import),
            ("export", &self.consent.export),
        ] {
            if names.is_empty() {
                text.line(2, &format!("{list}: []"));
                continue;
            }
            text.line(2, &format!("{list}:"));
            for name in names {
                text.item(3, name.as_str());
            }
        }
    }
}

/// A field that must be filled in before the file is accepted.
fn required(
    text: &mut Text,
    depth: usize,
    key: &str,
    value: Option<&str>,
    missing: &str,
    notes: &mut Vec<String>,
) {
    if let Some(value) = value {
        text.field(depth, key, value);
        return;
    }
    text.line(depth, &format!("{key}:"));
    if !missing.is_empty() {
        notes.push(missing.to_owned());
    }
}

fn name_of(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::Ztwim => "ztwim",
        Distribution::Helm => "helm",
        Distribution::Custom => "custom",
    }
}

/// A name alone, or with its options: JSON is YAML.
fn expose(expose: &Expose) -> String {
    let name = match expose {
        Expose::Route => "route",
        Expose::None => "none",
        Expose::Ingress(options) if *options == IngressOptions::default() => "ingress",
        Expose::LoadBalancer(options) if *options == LoadBalancerOptions::default() => {
            "loadBalancer"
        }
        Expose::Ingress(_) | Expose::Gateway(_) | Expose::LoadBalancer(_) => {
            return serde_json::to_string(expose).unwrap_or_default();
        }
    };
    name.to_owned()
}

/// The names that differ from what all distributions have.
fn server(text: &mut Text, server: &Server) {
    let usual = Server::default();
    let names = [
        ("statefulSet", &server.stateful_set, &usual.stateful_set),
        ("container", &server.container, &usual.container),
        ("configMap", &server.config_map, &usual.config_map),
        ("configKey", &server.config_key, &usual.config_key),
    ];
    let differing: Vec<_> = names
        .iter()
        .filter(|(_, name, usual)| name != usual)
        .collect();
    if differing.is_empty() {
        return;
    }
    text.line(2, "server:");
    for (key, name, _) in differing {
        text.field(3, key, name);
    }
}

fn bundle_source(text: &mut Text, found: &Found<BundleSource>) {
    text.comment(2, &format!("{}.", capital(&found.place)));
    match &found.value {
        BundleSource::ConfigMap(source) => {
            text.line(2, "bundleSource:");
            text.line(3, "configMap:");
            if let Some(namespace) = &source.namespace {
                text.field(4, "namespace", namespace);
            }
            text.field(4, "name", &source.name);
            text.field(4, "key", &source.key);
        }
        BundleSource::Endpoint(source) => {
            text.line(2, "bundleSource:");
            text.line(3, "endpoint:");
            text.line(4, "roots:");
            if let Some(namespace) = &source.roots.namespace {
                text.field(5, "namespace", namespace);
            }
            text.field(5, "name", &source.roots.name);
            if let Some(key) = &source.roots.key {
                text.field(5, "key", key);
            }
        }
        BundleSource::Auto | BundleSource::Exec(_) | BundleSource::File(_) => {
            text.line(2, "bundleSource: auto");
        }
    }
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    let first = characters.next().map(|it| it.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

/// What an installation still needs, as the values of its chart, where a chart keeps it.
pub(super) fn chart_values(installation: &Installation) -> Option<String> {
    if installation.distribution.value != Distribution::Helm {
        return None;
    }
    let mut text = Text::default();
    let configuration = &installation.configuration;
    let (endpoint, published) = (&configuration.endpoint, &configuration.published);
    if endpoint.is_some() && published.is_some() && !installation.exposures.is_empty() {
        return None;
    }
    text.line(0, "spire-server:");
    if published.is_none() {
        text.line(1, "bundlePublisher:");
        text.line(2, "k8sConfigMap:");
        text.line(3, "enabled: true");
        text.line(3, "format: spiffe");
    }
    if endpoint.is_none() || installation.exposures.is_empty() {
        text.line(1, "federation:");
        text.line(2, "enabled: true");
    }
    if installation.exposures.is_empty() {
        text.line(2, "ingress:");
        text.line(3, "enabled: true");
    }
    Some(text.finish())
}
