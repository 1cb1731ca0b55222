//! Where a trust domain's bundle is served, and what the agent keeps of that.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};

use url::{Host, Url};

use super::trust_domain::{SpiffeId, TrustDomain};

/// Where peers' SPIRE servers poll a trust domain's bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleEndpoint {
    /// There is none, or none that peers reach: git is the only way.
    None,
    /// A SPIFFE bundle endpoint.
    Served(ServedEndpoint),
}

/// A SPIFFE bundle endpoint (SPIFFE Federation, section 5).
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of its own in the declaration"
)]
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
    /// Whether the agent configures the SPIRE server, restarts it for that, and keeps the
    /// endpoint's Service and what exposes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manage: bool,
    /// The port that the SPIRE server listens on; 8443 if none is given. Only with `manage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the peers are also written into the server's own configuration. Nothing needs it;
    /// each new peer then restarts the server, and what stands there outranks what the controller
    /// manager knows. Only with `manage`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub static_federates_with: bool,
    /// Whether the server may be restarted although that loses its keys or its registrations. Also
    /// without `manage`, for giving back what the agent had set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_data_loss: bool,
    /// Whether settings may be made that the operator of the distribution `ztwim` never lets
    /// anybody take back. Only with `manage`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_irreversible: bool,
}

impl ServedEndpoint {
    /// The port that SPIRE's own documents and charts use for the endpoint.
    pub const PORT: u16 = 8443;

    /// The port that the SPIRE server listens on.
    pub fn server_port(&self) -> u16 {
        self.port.unwrap_or(Self::PORT)
    }

    /// What does not fit together, each with where it stands below the endpoint.
    pub(super) fn contradictions(&self, own: &TrustDomain) -> Vec<Contradiction> {
        if self.manage {
            self.managed_contradictions(own)
        } else {
            self.without_effect()
        }
    }

    /// What is said of how the agent should keep the endpoint, which it is not asked to.
    fn without_effect(&self) -> Vec<Contradiction> {
        let exposed = self.expose.as_ref().is_some_and(|it| *it != Expose::None);
        let said = [
            ("expose", exposed),
            ("port", self.port.is_some()),
            ("staticFederatesWith", self.static_federates_with),
            ("acceptIrreversible", self.accept_irreversible),
        ];
        let said = said.into_iter().filter(|(_, said)| *said);
        said.map(|(field, _)| Contradiction {
            field,
            harmless: true,
            message: format!("`{field}` changes nothing without `manage: true`"),
            help: "have the agent keep the endpoint with `manage: true`, or remove it".to_owned(),
        })
        .collect()
    }

    fn managed_contradictions(&self, own: &TrustDomain) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut wrong = |field, message: String, help: &str| {
            found.push(Contradiction {
                field,
                harmless: false,
                message,
                help: help.to_owned(),
            });
        };
        if self.port == Some(0) {
            wrong("port", "port 0 is none".to_owned(), "use 8443");
        }
        let proven = SpiffeId::spire_server(own);
        if self.spiffe_id.as_ref().is_some_and(|it| *it != proven) {
            let help = format!("write `{proven}`, or remove `manage`");
            let message = "the endpoint that the agent keeps is the SPIRE server's own".to_owned();
            wrong("spiffeID", message, &help);
        }
        match &self.expose {
            None => wrong(
                "manage",
                "how the managed endpoint is exposed is not said".to_owned(),
                "add `expose: route`, `ingress`, `gateway`, `loadBalancer`, or `none` if you do it",
            ),
            Some(Expose::Gateway(options)) if options.parent_refs.is_empty() => wrong(
                "expose",
                "a TLSRoute belongs to a Gateway, and none is named".to_owned(),
                "write `expose: {gateway: {parentRefs: [{name: <gateway>, namespace: <its namespace>}]}}`",
            ),
            Some(Expose::Ingress(options))
                if options.known_controller().is_none() && options.annotations.is_empty() =>
            {
                wrong(
                    "expose",
                    "how the Ingress's controller passes TLS through is not known".to_owned(),
                    "write `expose: {ingress: {className: <class>, controller: nginx | haproxy | openshift}}`, \
                     or the `annotations` that it takes",
                );
            }
            _ => {}
        }
        let by_name = matches!(
            self.expose,
            Some(Expose::Route | Expose::Ingress(_) | Expose::Gateway(_))
        );
        let Some((host, port)) = self.host_and_port().filter(|_| by_name) else {
            return found;
        };
        if !matches!(Host::parse(&host), Ok(Host::Domain(_))) {
            wrong(
                "url",
                format!(
                    "`{host}` is no name, and TLS is passed through by the name that is asked for"
                ),
                "use a name, or `expose: loadBalancer`",
            );
        }
        if port != 443 && !matches!(self.expose, Some(Expose::Gateway(_))) {
            wrong(
                "url",
                format!("nothing that `expose` makes serves port {port}: routers listen on 443"),
                "leave the port out, or use `expose: loadBalancer`",
            );
        }
        found
    }

    /// The URL's host, and its port (443 if it names none); `None` if it is no such URL.
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let url = Url::parse(&self.url).ok()?;
        Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
    }
}

/// What does not fit together in the declaration of an endpoint.
pub(super) struct Contradiction {
    /// The field.
    pub(super) field: &'static str,
    /// Whether it merely changes nothing.
    pub(super) harmless: bool,
    pub(super) message: String,
    pub(super) help: String,
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

/// How an endpoint is exposed outside its cluster: `route`, or `{gateway: {parentRefs: […]}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Expose {
    /// An `OpenShift` Route with TLS passthrough.
    Route,
    /// An Ingress with TLS passthrough.
    Ingress(IngressOptions),
    /// A Gateway API `TLSRoute`.
    Gateway(GatewayOptions),
    /// A Service of type `LoadBalancer`.
    LoadBalancer(LoadBalancerOptions),
    /// Not by Trustweave.
    None,
}

/// What an Ingress needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IngressOptions {
    /// The class of the controller; the cluster's default if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// How that controller is told to pass TLS through; known from the class names `nginx`,
    /// `haproxy` and `openshift-default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<IngressController>,
    /// Further annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A controller of Ingresses that can pass TLS through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IngressController {
    /// ingress-nginx, started with `--enable-ssl-passthrough`.
    Nginx,
    /// `HAProxy`'s own, and haproxy-ingress.
    Haproxy,
    /// `OpenShift`'s router.
    Openshift,
}

impl IngressOptions {
    /// The controller that is named, or known by the name of its class.
    pub fn known_controller(&self) -> Option<IngressController> {
        self.controller.or(match self.class_name.as_deref()? {
            "nginx" => Some(IngressController::Nginx),
            "haproxy" => Some(IngressController::Haproxy),
            "openshift-default" => Some(IngressController::Openshift),
            _ => None,
        })
    }
}

/// What a `TLSRoute` needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayOptions {
    /// The Gateways, each with a listener of protocol TLS and mode Passthrough.
    pub parent_refs: Vec<ParentRef>,
}

/// A Gateway, or one listener of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// The Gateway's name.
    pub name: String,
    /// Its namespace; SPIRE's if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The listener; every one that fits if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// What a Service of type `LoadBalancer` needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancerOptions {
    /// Annotations by which a cloud is told what to provide.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Expose {
    /// The names as they are written.
    const NAMES: [&'static str; 5] = ["route", "ingress", "gateway", "loadBalancer", "none"];

    /// What each of them means.
    const MEANINGS: [&'static str; 5] = [
        "An OpenShift Route with TLS passthrough",
        "An Ingress with TLS passthrough",
        "A Gateway API TLSRoute; which Gateway, its options say",
        "A Service of type LoadBalancer",
        "Not by Trustweave",
    ];
}

impl<'de> Deserialize<'de> for Expose {
    /// A name alone, or a name with options: written out, so that `expose: ingress` means one
    /// without options.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Expose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`route`, `ingress`, `gateway`, `loadBalancer` or `none`, or a map of one of them to its options")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                match name {
                    "route" => Ok(Expose::Route),
                    "ingress" => Ok(Expose::Ingress(IngressOptions::default())),
                    "gateway" => Ok(Expose::Gateway(GatewayOptions::default())),
                    "loadBalancer" => Ok(Expose::LoadBalancer(LoadBalancerOptions::default())),
                    "none" => Ok(Expose::None),
                    other => Err(E::unknown_variant(other, &Expose::NAMES)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let name: String = map
                    .next_key()?
                    .ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let expose = match name.as_str() {
                    "ingress" => Expose::Ingress(map.next_value()?),
                    "gateway" => Expose::Gateway(map.next_value()?),
                    "loadBalancer" => Expose::LoadBalancer(map.next_value()?),
                    other => return Err(de::Error::unknown_variant(other, &Expose::NAMES[1..4])),
                };
                match map.next_key::<String>()? {
                    None => Ok(expose),
                    Some(_) => Err(de::Error::invalid_length(2, &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Expose {
    fn schema_name() -> Cow<'static, str> {
        "Expose".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ingress = generator.subschema_for::<IngressOptions>();
        let gateway = generator.subschema_for::<GatewayOptions>();
        let load_balancer = generator.subschema_for::<LoadBalancerOptions>();
        let names = Self::NAMES.into_iter().zip(Self::MEANINGS);
        let names = names.map(|(name, meaning)| {
            json_schema!({"type": "string", "const": name, "description": meaning})
        });
        let with_options = json_schema!({
            "type": "object",
            "properties": {"ingress": ingress, "gateway": gateway, "loadBalancer": load_balancer},
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
        });
        let forms: Vec<Schema> = names.chain([with_options]).collect();
        json_schema!({
            "description": "How an endpoint is exposed outside its cluster: a name, or a name with options.",
            "oneOf": forms,
        })
    }
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

    /// The endpoint, if there is one.
    pub fn served(&self) -> Option<&ServedEndpoint> {
        match self {
            Self::None => None,
            Self::Served(endpoint) => Some(endpoint),
        }
    }

    /// The endpoint, if the agent is to keep it.
    pub fn managed(&self) -> Option<&ServedEndpoint> {
        match self {
            Self::Served(endpoint) if endpoint.manage => Some(endpoint),
            _ => None,
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoint(more: &Value) -> ServedEndpoint {
        let mut endpoint = json!({"profile": "https_spiffe", "url": "https://a.test"});
        let (object, more) = (endpoint.as_object_mut().unwrap(), more.as_object().unwrap());
        object.extend(more.clone());
        serde_json::from_value(endpoint).unwrap()
    }

    #[test]
    fn expose_is_a_name_or_a_name_with_options() {
        let read = |value: Value| serde_json::from_value::<Expose>(value);
        let check = |value: Value, expected: Expose| {
            let found = read(value).unwrap();
            assert_eq!(found, expected);
            // What is written is read back.
            assert_eq!(
                read(serde_json::to_value(&found).unwrap()).unwrap(),
                expected
            );
        };
        check(json!("route"), Expose::Route);
        check(json!("none"), Expose::None);
        check(json!("ingress"), Expose::Ingress(IngressOptions::default()));
        let annotations = [("a".to_owned(), "b".to_owned())].into();
        check(
            json!({"loadBalancer": {"annotations": {"a": "b"}}}),
            Expose::LoadBalancer(LoadBalancerOptions { annotations }),
        );
        for (value, expected) in [
            (json!("router"), "unknown variant `router`"),
            (json!({"route": {}}), "unknown variant `route`"),
            (json!({"ingress": {}, "gateway": {}}), "invalid length 2"),
            (json!({}), "invalid length 0"),
            (json!(1), "expected `route`, `ingress`"),
            (json!({"ingress": {"class": "x"}}), "unknown field `class`"),
        ] {
            let error = read(value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let own = TrustDomain::parse("a.test").unwrap();
        let check = |more: Value, expected: &[&str]| {
            let found = endpoint(&more).contradictions(&own);
            let found: Vec<_> = found.iter().map(|it| it.message.as_str()).collect();
            let fits = found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(it, part)| it.contains(part));
            assert!(fits, "{more}: {found:?}");
        };
        check(json!({}), &[]);
        check(json!({"expose": "none", "acceptDataLoss": true}), &[]);
        check(json!({"expose": "route"}), &["`expose` changes nothing"]);
        check(
            json!({"port": 1, "staticFederatesWith": true, "acceptIrreversible": true}),
            &["`port`", "`staticFederatesWith`", "`acceptIrreversible`"],
        );
        let managed = |mut more: Value| {
            more["manage"] = true.into();
            more
        };
        check(managed(json!({"expose": "route"})), &[]);
        check(managed(json!({})), &["is not said"]);
        check(managed(json!({"expose": "gateway"})), &["none is named"]);
        check(
            managed(
                json!({"expose": {"gateway": {"parentRefs": [{"name": "g"}]}}, "url": "https://a.test:8443"}),
            ),
            &[],
        );
        check(managed(json!({"expose": "ingress"})), &["is not known"]);
        check(
            managed(json!({"expose": {"ingress": {"className": "nginx"}}})),
            &[],
        );
        check(
            managed(json!({"expose": {"ingress": {"annotations": {"a": "b"}}}})),
            &[],
        );
        check(
            managed(json!({"expose": "route", "url": "https://127.0.0.1:8443"})),
            &["is no name", "serves port 8443"],
        );
        check(
            managed(json!({"expose": "route", "url": "https://[::1]"})),
            &["is no name"],
        );
        check(
            managed(json!({"expose": "loadBalancer", "url": "https://127.0.0.1:8443"})),
            &[],
        );
        check(
            managed(json!({"expose": "none", "spiffeID": "spiffe://b.test/x", "port": 0})),
            &["port 0", "SPIRE server's own"],
        );
    }
}
