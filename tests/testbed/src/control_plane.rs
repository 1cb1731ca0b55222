//! What the programs of a control plane are started with, at both levels.

use std::ffi::OsString;
use std::path::Path;

use crate::credentials::ApiServerCredentials;
use crate::process::{arguments, flag};

/// Only who is on this machine can reach the API server, and only as long as a test runs.
pub(crate) const ADMIN_TOKEN: &str = "testbed-admin";

/// Arguments of etcd, by its data directory and the URLs of its clients and of its peers.
pub(crate) fn etcd(data: &Path, clients: &str, peers: &str) -> Vec<OsString> {
    arguments![
        "--name=etcd",
        flag("--data-dir=", data),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=etcd={peers}"),
        // Nobody needs this data after a power failure.
        "--unsafe-no-fsync",
    ]
}

/// Arguments of an API server, but for those that say where it listens, where Services are, and what is admitted.
pub(crate) fn api_server(
    credentials: &ApiServerCredentials,
    tokens: &Path,
    etcd: &str,
    port: u16,
) -> Vec<OsString> {
    arguments![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        flag("--tls-cert-file=", &credentials.server.certificate),
        flag("--tls-private-key-file=", &credentials.server.key),
        flag("--token-auth-file=", tokens),
        flag(
            "--service-account-key-file=",
            &credentials.service_account_public_key
        ),
        flag(
            "--service-account-signing-key-file=",
            &credentials.service_account_key
        ),
        "--service-account-issuer=https://kubernetes.default.svc",
    ]
}

/// Arguments of the controllers, but for which of them run.
pub(crate) fn controllers(kubeconfig: &Path, credentials: &ApiServerCredentials) -> Vec<OsString> {
    let mut arguments = scheduler(kubeconfig);
    arguments.push(flag("--root-ca-file=", &credentials.authority));
    arguments
}

/// Arguments of the scheduler.
pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<OsString> {
    arguments![
        flag("--kubeconfig=", kubeconfig),
        "--leader-elect=false",
        "--secure-port=0",
    ]
}
