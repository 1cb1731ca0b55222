//! The kind `TrustDomain`: what a trust domain's owners declare about it.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};
use ssh_key::PublicKey;
use thiserror::Error;

use super::trust_domain::{ClusterName, SpiffeId, TrustDomain};

/// The `apiVersion` of every document of Trustweave.
pub const API_VERSION: &str = "trustweave.dev/v1alpha1";

/// The `kind` of `trust-domain.yaml`.
pub const KIND: &str = "TrustDomain";

/// A document of Trustweave in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope<S> {
    /// `trustweave.dev/v1alpha1`.
    pub api_version: String,
    /// The kind of the document.
    pub kind: String,
    /// The document's name.
    pub metadata: Metadata,
    /// What is declared.
    pub spec: S,
}

/// The name of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name; of a `TrustDomain` the trust domain's own.
    pub name: String,
}

/// What a trust domain's owners declare about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustDomainSpec {
    /// The clusters of the trust domain; one of them publishes its bundle.
    pub clusters: Vec<Cluster>,
    /// The SPIRE installation in these clusters.
    pub spire: Spire,
    /// Where peers' SPIRE servers poll the bundle, or `none`.
    pub bundle_endpoint: BundleEndpoint,
    /// The SSH public keys whose signature makes a bundle this trust domain's.
    pub signers: Vec<Signer>,
    /// With whom this trust domain agrees to federate.
    #[serde(default)]
    pub consent: Consent,
    /// Raised by review only, when the publisher's counter was lost or the cluster was re-created.
    #[serde(default)]
    pub epoch: u64,
}

impl TrustDomainSpec {
    /// The one cluster that publishes the bundle: the declared one, or the only one.
    pub fn publisher(&self) -> Option<&ClusterName> {
        let mut publishers = self.clusters.iter().filter(|cluster| cluster.publisher);
        match (
            publishers.next(),
            publishers.next(),
            self.clusters.as_slice(),
        ) {
            (Some(cluster), None, _) | (None, None, [cluster]) => Some(&cluster.name),
            _ => None,
        }
    }
}

/// A cluster of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name; `clusters/<name>` is its overlay.
    pub name: ClusterName,
    /// Whether the agent of this cluster publishes the trust domain's bundle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publisher: bool,
}

/// The SPIRE installation in the clusters of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spire {
    /// Who installed it.
    pub distribution: Distribution,
    /// The namespace of the SPIRE server.
    pub namespace: String,
    /// The `className` that its controller manager reconciles.
    pub class_name: String,
    /// Its server's objects, where they are not called as all distributions call them.
    #[serde(default, skip_serializing_if = "Server::is_default")]
    pub server: Server,
    /// Where the trust domain's own bundle is read.
    #[serde(default)]
    pub bundle_source: BundleSource,
}

/// What the objects of the SPIRE server are called, in SPIRE's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// The `StatefulSet`.
    pub stateful_set: String,
    /// The container of the server in it.
    pub container: String,
    /// The `ConfigMap` with the server's configuration.
    pub config_map: String,
    /// The key in it.
    pub config_key: String,
}

impl Server {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Server {
    /// As the Helm charts with the release `spire` and the zero trust workload identity manager have it.
    fn default() -> Self {
        Self {
            stateful_set: "spire-server".to_owned(),
            container: "spire-server".to_owned(),
            config_map: "spire-server".to_owned(),
            config_key: "server.conf".to_owned(),
        }
    }
}

/// Who installed SPIRE, and so who owns its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Distribution {
    /// `OpenShift`'s zero trust workload identity manager.
    Ztwim,
    /// The upstream Helm charts.
    Helm,
    /// Anything else.
    Custom,
}

/// Where a trust domain's own bundle is read in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum BundleSource {
    /// The first of `configMap`, `endpoint` and `exec`, each with its defaults, that gives a whole
    /// bundle: the least privileged that works. The status of the `GitSync` says which.
    #[default]
    Auto,
    /// The `ConfigMap` that SPIRE's `BundlePublisher` plugin `k8s_configmap` writes, format `spiffe`.
    ConfigMap(ConfigMapSource),
    /// The trust domain's own bundle endpoint, from inside the cluster.
    Endpoint(EndpointSource),
    /// `spire-server bundle show -format spiffe` in the server's container: needs the right to
    /// execute commands in it, which is control over the trust domain.
    Exec(ExecSource),
    /// A file that something else writes into the agent's own container.
    File(FileSource),
}

/// The `ConfigMap` of the `BundlePublisher`, in SPIRE's namespace unless another is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConfigMapSource {
    /// The namespace, if it is not SPIRE's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The key that holds the bundle.
    pub key: String,
}

impl Default for ConfigMapSource {
    /// As the upstream Helm charts set it up.
    fn default() -> Self {
        Self {
            namespace: None,
            name: "spire-bundle".to_owned(),
            key: "bundle.spiffe".to_owned(),
        }
    }
}

/// The bundle endpoint of the trust domain's own SPIRE server, which proves itself as
/// `spiffe://<trust domain>/spire/server`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndpointSource {
    /// `https://<host>[:port]`; if not said, port 8443 of the Service `spire-server-federation`, or
    /// else of `spire-server`, in SPIRE's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the endpoint's certificate is verified with.
    pub roots: RootsSource,
}

/// The `ConfigMap` with the trust domain's X.509 roots that SPIRE's agents start with, as SPIRE's
/// notifier `k8sbundle` or its `BundlePublisher` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RootsSource {
    /// The namespace, if it is not SPIRE's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The key, PEM or a SPIFFE bundle; if not said, `bundle.crt` and `bundle.spiffe` both count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Default for RootsSource {
    /// As all distributions call it.
    fn default() -> Self {
        Self {
            namespace: None,
            name: "spire-bundle".to_owned(),
            key: None,
        }
    }
}

/// A command in the container of the SPIRE server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExecSource {
    /// A pod of the SPIRE server, in SPIRE's namespace; if not said, the first of its `StatefulSet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container of the SPIRE server, if not the one that `server` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The program's path; if not said, `/opt/spire/bin/spire-server` as in upstream's images, or else
    /// `/spire-server` as in those of the zero trust workload identity manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The server's API socket, if not the program's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
}

/// A file with the bundle in SPIFFE's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSource {
    /// Its absolute path in the agent's container. It is looked at every two seconds.
    pub path: String,
}

/// Where peers' SPIRE servers poll a trust domain's bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleEndpoint {
    /// There is none, or none that peers reach: git is the only way.
    None,
    /// A SPIFFE bundle endpoint.
    Served(ServedEndpoint),
}

/// A SPIFFE bundle endpoint (SPIFFE Federation, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedEndpoint {
    /// How a client knows the endpoint.
    pub profile: Profile,
    /// `https://<host>[:port]`, path `/` only: SPIRE answers any other path with 404.
    pub url: String,
    /// The SPIFFE ID of the endpoint's certificate; `https_spiffe` only.
    #[serde(default, rename = "spiffeID", skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// How often, in seconds, peers should poll; delivered as an integer of 60 to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_hint: Option<u64>,
    /// How the endpoint is exposed outside its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
    /// Whether the agent keeps the endpoint's Service, route and server configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manage: bool,
}

/// How a client of a bundle endpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// By an X.509-SVID of a known SPIFFE ID.
    HttpsSpiffe,
    /// By a certificate of the public web.
    HttpsWeb,
}

impl Profile {
    /// The form that SPIRE's objects use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpsSpiffe => "https_spiffe",
            Self::HttpsWeb => "https_web",
        }
    }
}

/// How an endpoint is exposed outside its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Expose {
    /// An `OpenShift` Route with TLS passthrough.
    Route,
    /// An Ingress with TLS passthrough.
    Ingress,
    /// A Gateway API `TLSRoute`.
    Gateway,
    /// A Service of type `LoadBalancer`.
    LoadBalancer,
    /// Not by Trustweave.
    None,
}

impl BundleEndpoint {
    /// Whether both lead a client to the same place, by the same proof.
    pub fn same_address(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Served(a), Self::Served(b)) => {
                (&a.url, a.profile, &a.spiffe_id) == (&b.url, b.profile, &b.spiffe_id)
            }
            _ => false,
        }
    }

    /// The refresh hint that is declared, in seconds.
    pub fn refresh_hint(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Served(endpoint) => endpoint.refresh_hint,
        }
    }
}

impl fmt::Display for BundleEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Served(endpoint) => {
                write!(f, "{} by {}", endpoint.url, endpoint.profile.as_str())?;
                endpoint
                    .spiffe_id
                    .iter()
                    .try_for_each(|id| write!(f, " as {id}"))
            }
        }
    }
}

impl Serialize for BundleEndpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Served(endpoint) => endpoint.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for BundleEndpoint {
    /// Written out, as an untagged enum would not say which field is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = BundleEndpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or an endpoint with `profile` and `url`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "none" => Ok(BundleEndpoint::None),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                ServedEndpoint::deserialize(MapAccessDeserializer::new(map))
                    .map(BundleEndpoint::Served)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for BundleEndpoint {
    fn schema_name() -> Cow<'static, str> {
        "BundleEndpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let served = generator.subschema_for::<ServedEndpoint>();
        json_schema!({"oneOf": [{"const": "none"}, served]})
    }
}

/// An SSH public key, as in one line of an OpenSSH `.pub` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signer(PublicKey);

/// The text is no SSH public key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not an SSH public key as in a .pub file (`ssh-ed25519 AAAA… comment`): {0}")]
pub struct InvalidSigner(String);

impl Signer {
    /// Parses one line in OpenSSH's form.
    pub fn parse(line: &str) -> Result<Self, InvalidSigner> {
        if line.contains("PRIVATE KEY") {
            return Err(InvalidSigner(
                "this is a private key; remove it, and replace it".into(),
            ));
        }
        line.trim()
            .parse()
            .map(Self)
            .map_err(|error| InvalidSigner(error.to_string()))
    }

    /// The key.
    pub fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// The fingerprint as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }
}

impl TryFrom<String> for Signer {
    type Error = InvalidSigner;

    fn try_from(line: String) -> Result<Self, Self::Error> {
        Self::parse(&line)
    }
}

impl From<Signer> for String {
    fn from(signer: Signer) -> Self {
        signer.0.to_openssh().unwrap_or_default()
    }
}

impl JsonSchema for Signer {
    fn schema_name() -> Cow<'static, str> {
        "Signer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An SSH public key as in one line of an OpenSSH .pub file",
            "pattern": "^(ssh|ecdsa|sk)-\\S+ [A-Za-z0-9+/=]+( .*)?$",
        })
    }
}

/// With whom a trust domain agrees to federate, by name, one direction at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Consent {
    /// The trust domains whose bundles this one takes in.
    #[serde(default)]
    pub import: BTreeSet<TrustDomain>,
    /// The trust domains that may take in this one's bundle. A policy that agents honour, not
    /// access control: the bundle endpoint is public.
    #[serde(default)]
    pub export: BTreeSet<TrustDomain>,
}
