//! The source that a trust domain's declaration names.

use kube::Client;

use super::{
    BundleSource, Error,
    auto::Auto,
    configmap::{ConfigMap, WatchedConfigMap},
    exec::Exec,
    file::File,
    local_endpoint::LocalEndpoint,
};
use crate::model::{
    bundle::Bundle,
    declaration::{self, ConfigMapSource, EndpointSource, ExecSource, Spire},
    trust_domain::TrustDomain,
};

/// The source that a trust domain's declaration names.
pub enum Source {
    /// One that was named.
    Named(Box<Named>),
    /// The least privileged that works.
    Auto(Box<Auto<Named>>),
}

/// A source of one kind.
pub enum Named {
    /// The `ConfigMap` of the `BundlePublisher`.
    ConfigMap(ConfigMap),
    /// The own bundle endpoint.
    Endpoint(LocalEndpoint),
    /// A command in the server's container.
    Exec(Exec),
    /// A file in the agent's container.
    File(File),
}

impl Source {
    /// Opens the source of a trust domain in the cluster that the client is for.
    pub fn open(client: &Client, trust_domain: &TrustDomain, spire: &Spire) -> Self {
        let opening = Opening {
            client,
            trust_domain,
            spire,
        };
        match &spire.bundle_source {
            declaration::BundleSource::Auto => Self::Auto(Box::new(Auto::new(
                trust_domain.clone(),
                vec![
                    opening.config_map(&ConfigMapSource::default()),
                    opening.endpoint(&EndpointSource::default()),
                ],
                opening.exec(&ExecSource::default()),
            ))),
            declaration::BundleSource::ConfigMap(source) => named(opening.config_map(source)),
            declaration::BundleSource::Endpoint(source) => named(opening.endpoint(source)),
            declaration::BundleSource::Exec(source) => named(opening.exec(source)),
            declaration::BundleSource::File(source) => named(Named::File(File::new(source))),
        }
    }
}

fn named(source: Named) -> Source {
    Source::Named(Box::new(source))
}

struct Opening<'a> {
    client: &'a Client,
    trust_domain: &'a TrustDomain,
    spire: &'a Spire,
}

impl Opening<'_> {
    fn config_map(&self, source: &ConfigMapSource) -> Named {
        let client = self.client.clone();
        Named::ConfigMap(ConfigMap::new(client, &self.spire.namespace, source))
    }

    fn endpoint(&self, source: &EndpointSource) -> Named {
        let namespace = &self.spire.namespace;
        let of_roots = source.roots.namespace.as_ref().unwrap_or(namespace);
        let roots = WatchedConfigMap::new(self.client.clone(), of_roots, &source.roots.name);
        Named::Endpoint(LocalEndpoint::new(
            self.trust_domain,
            namespace,
            source,
            roots,
        ))
    }

    fn exec(&self, source: &ExecSource) -> Named {
        Named::Exec(Exec::new(self.client.clone(), self.spire, source))
    }
}

impl BundleSource for Named {
    async fn current(&self) -> Result<Bundle, Error> {
        match self {
            Self::ConfigMap(source) => source.current().await,
            Self::Endpoint(source) => source.current().await,
            Self::Exec(source) => source.current().await,
            Self::File(source) => source.current().await,
        }
    }

    async fn changed(&self) {
        match self {
            Self::ConfigMap(source) => source.changed().await,
            Self::Endpoint(source) => source.changed().await,
            Self::Exec(source) => source.changed().await,
            Self::File(source) => source.changed().await,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::ConfigMap(source) => source.describe(),
            Self::Endpoint(source) => source.describe(),
            Self::Exec(source) => source.describe(),
            Self::File(source) => source.describe(),
        }
    }
}

impl BundleSource for Source {
    async fn current(&self) -> Result<Bundle, Error> {
        match self {
            Self::Named(source) => source.current().await,
            Self::Auto(source) => source.current().await,
        }
    }

    async fn changed(&self) {
        match self {
            Self::Named(source) => source.changed().await,
            Self::Auto(source) => source.changed().await,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Named(source) => source.describe(),
            Self::Auto(source) => source.describe(),
        }
    }
}
