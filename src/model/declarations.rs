//! All declarations of a revision, read together and checked against each other.
//!
//! **Invariant:** a broken file never takes down more than itself. Where the last good reading
//! knows the same declaration, that stays in force.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use url::Url;

use super::{
    declaration::{
        self, API_VERSION, BundleEndpoint, BundleSource, EndpointSource, Envelope, Profile,
        TrustDomainSpec,
    },
    diagnostic::{Code, Diagnostic, nearest},
    distrust::{self, DistrustSpec},
    repository::{
        RepoPath, Tree, distrust_path, topology_path, trust_domain_path, trust_domains_directory,
    },
    topology::{self, TopologySpec},
    trust_domain::{ClusterName, SpiffeId, TrustDomain},
    yaml::{self, Document},
};

/// Everything that is declared about topology and trust domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    /// Who should federate with whom.
    pub topology: TopologySpec,
    /// The topology can't be read, and no older reading of it is known: nothing may be concluded
    /// from the absence of an edge.
    pub topology_unknown: bool,
    /// What each trust domain's owners declare.
    pub trust_domains: BTreeMap<TrustDomain, TrustDomainSpec>,
    /// The keys that each trust domain no longer accepts.
    pub distrust: BTreeMap<TrustDomain, DistrustSpec>,
    /// Trust domains whose `distrust.yaml` can't be read, and no older reading of it is known.
    pub distrust_unknown: BTreeSet<TrustDomain>,
}

impl Declarations {
    /// The trust domain that declares the cluster, and whether the cluster publishes its bundle.
    pub fn trust_domain_of(
        &self,
        cluster: &ClusterName,
    ) -> Option<(&TrustDomain, &TrustDomainSpec)> {
        self.trust_domains.iter().find(|(_, spec)| {
            spec.clusters
                .iter()
                .any(|declared| declared.name == *cluster)
        })
    }

    /// Every declared cluster, in order.
    pub fn clusters(&self) -> BTreeSet<&ClusterName> {
        self.trust_domains
            .values()
            .flat_map(|spec| &spec.clusters)
            .map(|c| &c.name)
            .collect()
    }

    /// Reads the declarations of a revision. What can't be read, or contradicts another
    /// declaration, is reported and replaced by what `last_good` says of it, if anything.
    pub fn load(tree: &Tree, last_good: Option<&Self>) -> (Self, Vec<Diagnostic>) {
        let mut reader = Reader {
            tree,
            diagnostics: Vec::new(),
        };
        let mut documents = BTreeMap::new();
        let mut trust_domains = BTreeMap::new();
        for name in tree.directories(&trust_domains_directory()) {
            if let Some((trust_domain, spec, document)) = reader.trust_domain(name) {
                documents.insert(trust_domain.clone(), document);
                trust_domains.insert(trust_domain, spec);
            } else if let (Ok(trust_domain), Some(last_good)) =
                (TrustDomain::parse(name), last_good)
                && let Some(spec) = last_good.trust_domains.get(&trust_domain)
            {
                trust_domains.insert(trust_domain, spec.clone());
            }
        }
        reader.refuse_double_claims(&mut trust_domains, &documents, last_good);

        let (distrust, distrust_unknown) = reader.all_distrust(last_good);
        let mut topology_unknown = false;
        let topology = match reader.topology() {
            None => {
                let good = last_good.filter(|good| !good.topology_unknown);
                topology_unknown = good.is_none();
                good.map(|good| good.topology.clone()).unwrap_or_default()
            }
            Some((spec, document)) => {
                let named = named_trust_domains(&spec);
                reader.check_topology(&spec, &document, &trust_domains);
                // A declaration that vanished while edges still need it is a mistake, not a
                // removal: nobody loses trust by it.
                for trust_domain in named {
                    let good = last_good.and_then(|good| good.trust_domains.get(&trust_domain));
                    if let Some(good) = good {
                        trust_domains
                            .entry(trust_domain)
                            .or_insert_with(|| good.clone());
                    }
                }
                spec
            }
        };
        reader.check_consent(&trust_domains, &documents);
        (
            Self {
                topology,
                topology_unknown,
                trust_domains,
                distrust,
                distrust_unknown,
            },
            reader.diagnostics,
        )
    }
}

/// Every trust domain that the topology names.
fn named_trust_domains(topology: &TopologySpec) -> BTreeSet<TrustDomain> {
    let edges = topology
        .edges()
        .into_iter()
        .flat_map(|edge| [edge.importer, edge.exporter]);
    let groups = topology
        .groups
        .iter()
        .flat_map(|group| group.all_members().cloned());
    edges.chain(groups).collect()
}

/// Reads documents of a tree and collects what is wrong with them.
struct Reader<'a> {
    tree: &'a Tree,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// The one document of a file, decoded; `None`, with a diagnostic, if it isn't that.
    fn document<S: DeserializeOwned>(
        &mut self,
        path: &RepoPath,
        kind: &str,
    ) -> Option<(Envelope<S>, Document)> {
        match self.try_document(path, kind) {
            Ok(found) => Some(found),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    fn try_document<S: DeserializeOwned>(
        &self,
        path: &RepoPath,
        kind: &str,
    ) -> Result<(Envelope<S>, Document), Diagnostic> {
        let mut documents = yaml::parse(path, self.tree.text(path)?)?.into_iter();
        let (Some(document), rest) = (documents.next(), documents.next()) else {
            return Err(
                Diagnostic::error(Code::MissingField, path, "the file is empty").help(format!(
                    "declare `apiVersion: {API_VERSION}` and `kind: {kind}`"
                )),
            );
        };
        if let Some(second) = rest {
            return Err(Diagnostic::error(
                Code::WrongKind,
                path,
                "a second document, where one is expected",
            )
            .at(second.position));
        }
        // Kind first: a document of another kind would only be told off field by field.
        let wrong = |pointer: &str, expected: &str| {
            let found = document.value.pointer(pointer)?;
            (found != expected).then(|| {
                Diagnostic::error(
                    Code::WrongKind,
                    path,
                    format!("`{}` is {found}, not `{expected}`", &pointer[1..]),
                )
                .at(document.position_of(pointer))
                .help(format!("write `{}: {expected}`", &pointer[1..]))
            })
        };
        if let Some(diagnostic) = wrong("/apiVersion", API_VERSION).or_else(|| wrong("/kind", kind))
        {
            return Err(diagnostic);
        }
        Ok((document.decode(path)?, document))
    }

    fn topology(&mut self) -> Option<(TopologySpec, Document)> {
        self.document::<TopologySpec>(&topology_path(), topology::KIND)
            .map(|(envelope, document)| (envelope.spec, document))
    }

    /// Every `distrust.yaml`; of one that can't be read the last usable reading, and who has none.
    fn all_distrust(
        &mut self,
        last_good: Option<&Declarations>,
    ) -> (BTreeMap<TrustDomain, DistrustSpec>, BTreeSet<TrustDomain>) {
        let (mut known, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for name in self.tree.directories(&trust_domains_directory()) {
            let Ok(trust_domain) = TrustDomain::parse(name) else {
                continue;
            };
            if self.tree.get(&distrust_path(&trust_domain)).is_none() {
                continue;
            }
            if let Some(spec) = self.distrust(&trust_domain) {
                known.insert(trust_domain, spec);
                continue;
            }
            let good = last_good.filter(|good| !good.distrust_unknown.contains(&trust_domain));
            match good {
                Some(good) => {
                    let spec = good.distrust.get(&trust_domain).cloned();
                    known.insert(trust_domain, spec.unwrap_or_default());
                }
                None => {
                    unknown.insert(trust_domain);
                }
            }
        }
        (known, unknown)
    }

    fn distrust(&mut self, trust_domain: &TrustDomain) -> Option<DistrustSpec> {
        let path = distrust_path(trust_domain);
        let (envelope, document) = self.document::<DistrustSpec>(&path, distrust::KIND)?;
        if envelope.metadata.name != trust_domain.as_str() {
            self.diagnostics.push(
                Diagnostic::error(
                    Code::InvalidValue,
                    &path,
                    format!(
                        "the document is named `{}`, but its directory is `{trust_domain}`",
                        envelope.metadata.name
                    ),
                )
                .at(document.position_of("/metadata/name"))
                .help("name the document as the trust domain whose owners write it"),
            );
            return None;
        }
        Some(envelope.spec)
    }

    fn trust_domain(&mut self, name: &str) -> Option<(TrustDomain, TrustDomainSpec, Document)> {
        let directory = trust_domains_directory();
        let path = directory.join(&format!("{name}/trust-domain.yaml")).ok()?;
        let trust_domain = match TrustDomain::parse(name) {
            Ok(trust_domain) => trust_domain,
            Err(error) => {
                self.diagnostics.push(
                    Diagnostic::error(Code::InvalidValue, &path, error.to_string())
                        .help("name the directory as the trust domain"),
                );
                return None;
            }
        };
        let (envelope, document) = self.document::<TrustDomainSpec>(&path, declaration::KIND)?;
        let before = self.errors();
        if envelope.metadata.name != name {
            self.diagnostics.push(
                Diagnostic::error(
                    Code::InvalidValue,
                    &path,
                    format!(
                        "the trust domain is named `{}`, but its directory is `{name}`",
                        envelope.metadata.name
                    ),
                )
                .at(document.position_of("/metadata/name"))
                .help("the directory's name is the trust domain's name: make both the same"),
            );
        }
        self.check_trust_domain(&trust_domain, &envelope.spec, &path, &document);
        (self.errors() == before).then_some((trust_domain, envelope.spec, document))
    }

    fn errors(&self) -> usize {
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .count()
    }

    fn check_trust_domain(
        &mut self,
        trust_domain: &TrustDomain,
        spec: &TrustDomainSpec,
        path: &RepoPath,
        document: &Document,
    ) {
        let mut error = |pointer: &str, message: String, help: &str| {
            self.diagnostics.push(
                Diagnostic::error(Code::InvalidValue, path, message)
                    .at(document.position_of(pointer))
                    .help(help),
            );
        };
        if spec.clusters.is_empty() {
            error(
                "/spec/clusters",
                "the trust domain has no cluster".to_owned(),
                "name at least one cluster",
            );
        } else if spec.publisher().is_none() {
            error(
                "/spec/clusters",
                "not exactly one cluster is the publisher".to_owned(),
                "set `publisher: true` on the one cluster whose agent publishes the bundle",
            );
        }
        if spec.signers.is_empty() {
            error(
                "/spec/signers",
                "without a signer no peer can accept a bundle of this trust domain".to_owned(),
                "list the SSH public key of the publishing agent",
            );
        }
        match &spec.spire.bundle_source {
            BundleSource::Endpoint(EndpointSource { url: Some(url), .. }) => {
                if let Err((reason, help)) = check_endpoint_url(url) {
                    error("/spec/spire/bundleSource/endpoint/url", reason, help);
                }
            }
            BundleSource::File(file) if !file.path.starts_with('/') => error(
                "/spec/spire/bundleSource/file/path",
                format!("`{}` is not an absolute path", file.path),
                "write the path in the agent's container, from `/` on",
            ),
            _ => {}
        }
        if let BundleEndpoint::Served(endpoint) = &spec.bundle_endpoint {
            if let Err((reason, help)) = check_endpoint_url(&endpoint.url) {
                error("/spec/bundleEndpoint/url", reason, help);
            }
            match (endpoint.profile, &endpoint.spiffe_id) {
                (Profile::HttpsSpiffe, None) => error(
                    "/spec/bundleEndpoint",
                    "the profile `https_spiffe` needs `spiffeID`".to_owned(),
                    &format!(
                        "SPIRE's own endpoint is `{}`",
                        SpiffeId::spire_server(trust_domain)
                    ),
                ),
                (Profile::HttpsWeb, Some(_)) => error(
                    "/spec/bundleEndpoint/spiffeID",
                    "the profile `https_web` has no `spiffeID`".to_owned(),
                    "remove it, or use `https_spiffe`",
                ),
                _ => {}
            }
            for found in endpoint.contradictions(trust_domain) {
                let diagnostic = if found.harmless {
                    Diagnostic::warning(Code::WithoutEffect, path, found.message)
                } else {
                    Diagnostic::error(Code::InvalidValue, path, found.message)
                };
                let pointer = format!("/spec/bundleEndpoint/{}", found.field);
                self.diagnostics.push(
                    diagnostic
                        .at(document.position_of(&pointer))
                        .help(found.help),
                );
            }
        }
        for (pointer, names) in [
            ("import", &spec.consent.import),
            ("export", &spec.consent.export),
        ] {
            if names.contains(trust_domain) {
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::SelfFederation,
                        path,
                        format!("`{trust_domain}` consents to itself"),
                    )
                    .at(document.position_of(&format!("/spec/consent/{pointer}")))
                    .help("name other trust domains only"),
                );
            }
        }
    }

    /// A cluster that two trust domains claim is no one's: both declarations are refused.
    fn refuse_double_claims(
        &mut self,
        trust_domains: &mut BTreeMap<TrustDomain, TrustDomainSpec>,
        documents: &BTreeMap<TrustDomain, Document>,
        last_good: Option<&Declarations>,
    ) {
        let mut claims: BTreeMap<ClusterName, Vec<(TrustDomain, usize)>> = BTreeMap::new();
        for (trust_domain, spec) in &*trust_domains {
            for (index, cluster) in spec.clusters.iter().enumerate() {
                claims
                    .entry(cluster.name.clone())
                    .or_default()
                    .push((trust_domain.clone(), index));
            }
        }
        for (cluster, claimants) in claims {
            let [(first, _), (second, _), ..] = claimants.as_slice() else {
                continue;
            };
            let (first, second) = (first.clone(), second.clone());
            for (trust_domain, index) in claimants {
                let other = if trust_domain == first {
                    &second
                } else {
                    &first
                };
                let pointer = format!("/spec/clusters/{index}/name");
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::DuplicateClaim,
                        &trust_domain_path(&trust_domain),
                        format!("the cluster `{cluster}` is also claimed by `{other}`"),
                    )
                    .at(documents
                        .get(&trust_domain)
                        .map(|d| d.position_of(&pointer)))
                    .help("a cluster belongs to one trust domain: remove it from the other"),
                );
                match last_good.and_then(|good| good.trust_domains.get(&trust_domain)) {
                    Some(good) => trust_domains.insert(trust_domain, good.clone()),
                    None => trust_domains.remove(&trust_domain),
                };
            }
        }
    }

    fn check_topology(
        &mut self,
        spec: &TopologySpec,
        document: &Document,
        trust_domains: &BTreeMap<TrustDomain, TrustDomainSpec>,
    ) {
        let path = topology_path();
        for (index, edge) in spec.edges.iter().enumerate() {
            let pointer = format!("/spec/edges/{index}");
            let edges = edge.edges();
            if edges.is_empty() {
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::InvalidValue,
                        &path,
                        "an edge is either `between: [a, b]` or `from: a` and `to: b`",
                    )
                    .at(document.position_of(&pointer)),
                );
            }
            if edges.iter().any(|edge| edge.importer == edge.exporter) {
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::SelfFederation,
                        &path,
                        format!("`{}` is asked to federate with itself", edges[0].importer),
                    )
                    .at(document.position_of(&pointer))
                    .help("name two trust domains"),
                );
            }
        }
        for (index, group) in spec.groups.iter().enumerate() {
            let mesh = group.mesh && !group.members.is_empty();
            let star = group.hub.is_some() && !group.spokes.is_empty();
            let named = !group.members.is_empty() && group.hub.is_none() && group.spokes.is_empty();
            if !(named || star && group.members.is_empty() && !mesh) {
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::InvalidValue,
                        &path,
                        format!(
                            "the group `{}` is neither `members` nor `hub` with `spokes`",
                            group.name
                        ),
                    )
                    .at(document.position_of(&format!("/spec/groups/{index}"))),
                );
            }
        }
        self.check_names(&document.value["spec"], "/spec", document, trust_domains);
    }

    /// Whether a name stands for a trust domain. A declaration that can't be used is reported once,
    /// where it stands, and not wherever the trust domain is named.
    fn is_known(&self, name: &str, trust_domains: &BTreeMap<TrustDomain, TrustDomainSpec>) -> bool {
        TrustDomain::parse(name).is_ok_and(|name| {
            trust_domains.contains_key(&name) || self.tree.get(&trust_domain_path(&name)).is_some()
        })
    }

    /// Reports every name in the topology that no declaration stands for, each where it is written.
    fn check_names(
        &mut self,
        value: &serde_json::Value,
        pointer: &str,
        document: &Document,
        trust_domains: &BTreeMap<TrustDomain, TrustDomainSpec>,
    ) {
        use serde_json::Value::{Array, Object, String};
        match value {
            Object(members) => {
                for (key, value) in members.iter().filter(|(key, _)| *key != "name") {
                    let pointer = format!("{pointer}/{key}");
                    self.check_names(value, &pointer, document, trust_domains);
                }
            }
            Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{index}");
                    self.check_names(value, &pointer, document, trust_domains);
                }
            }
            String(name) if !self.is_known(name, trust_domains) => {
                let path = topology_path();
                let known = nearest(name, trust_domains.keys().map(TrustDomain::as_str));
                self.diagnostics.push(
                    Diagnostic::error(
                        Code::UnknownTrustDomain,
                        &path,
                        format!("there is no declaration of the trust domain `{name}`"),
                    )
                    .at(document.position_of(pointer))
                    .help(known.map_or_else(
                        || {
                            format!(
                                "add trust-domains/{name}/trust-domain.yaml, or remove the name"
                            )
                        },
                        |known| format!("did you mean `{known}`?"),
                    )),
                );
            }
            _ => {}
        }
    }

    /// Warns of consent to a trust domain that nobody declares: most likely a typing error.
    fn check_consent(
        &mut self,
        trust_domains: &BTreeMap<TrustDomain, TrustDomainSpec>,
        documents: &BTreeMap<TrustDomain, Document>,
    ) {
        for (trust_domain, document) in documents {
            for direction in ["import", "export"] {
                let list = format!("/spec/consent/{direction}");
                let names = document
                    .value
                    .pointer(&list)
                    .and_then(|names| names.as_array());
                for (index, name) in names.into_iter().flatten().enumerate() {
                    let Some(name) = name.as_str() else { continue };
                    if self.is_known(name, trust_domains) {
                        continue;
                    }
                    let known = nearest(name, trust_domains.keys().map(TrustDomain::as_str));
                    let warning = Diagnostic::warning(
                        Code::UnknownTrustDomain,
                        &trust_domain_path(trust_domain),
                        format!("consent to `{name}`, which no declaration stands for"),
                    )
                    .at(document.position_of(&format!("{list}/{index}")));
                    self.diagnostics.push(match known {
                        Some(known) => warning.help(format!("did you mean `{known}`?")),
                        None => warning,
                    });
                }
            }
        }
    }
}

/// Checks an endpoint's URL against what SPIRE and its controller manager make of it.
/// What is wrong, and what to write instead.
pub fn check_endpoint_url(text: &str) -> Result<(), (String, &'static str)> {
    let help = "write `https://<host>` or `https://<host>:<port>`";
    let url =
        Url::parse(text).map_err(|error| (format!("`{text}` is not a URL: {error}"), help))?;
    let reason = if !text.starts_with("https://") {
        // `HTTPS://` makes the controller manager rewrite the bundle in every pass.
        "does not start with `https://` in lower case"
    } else if !url.username().is_empty() || url.password().is_some() {
        "carries credentials"
    } else if !matches!(url.path(), "" | "/") {
        "has a path, which SPIRE answers with 404"
    } else if url.query().is_some() {
        "has a query"
    } else if url.fragment().is_some() {
        "has a fragment, where Trustweave writes its own"
    } else if text != text.to_lowercase() {
        "has upper-case letters"
    } else {
        return Ok(());
    };
    Err((format!("the endpoint's URL `{text}` {reason}"), help))
}
