//! The own bundle by `spire-server bundle show` in the server's container.
//!
//! Whoever may execute in that container controls the trust domain, so this is the last resort. The
//! command is executed as it is, without a shell, and has a deadline: the program has none.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::AttachParams};
use tokio::io::AsyncReadExt;

use super::{BundleSource, Error};
use crate::model::{bundle::MAX_BUNDLE_BYTES, declaration::ExecSource};

/// How long the command may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often the bundle is read: nothing tells that it changed.
const INTERVAL: Duration = Duration::from_secs(10);

/// The command in the server's container.
pub struct Exec {
    api: Api<Pod>,
    pod: String,
    container: String,
    command: Vec<String>,
    display_pod: String,
}

impl Exec {
    /// Runs in the source's pod in `spire_namespace`.
    pub fn new(client: Client, spire_namespace: &str, source: &ExecSource) -> Self {
        let mut command = vec![source.command.clone()];
        command.extend(["bundle", "show", "-format", "spiffe"].map(str::to_owned));
        if let Some(path) = &source.socket_path {
            command.extend(["-socketPath".to_owned(), path.clone()]);
        }
        Self {
            api: Api::namespaced(client, spire_namespace),
            pod: source.pod.clone(),
            container: source.container.clone(),
            command,
            display_pod: format!("{spire_namespace}/{}", source.pod),
        }
    }

    async fn run(&self) -> Result<Vec<u8>, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Exec {
            command: self.command.join(" "),
            pod: self.display_pod.clone(),
            source,
        };
        let parameters = AttachParams::default()
            .container(&self.container)
            .stdout(true)
            .stderr(true);
        let mut process = self
            .api
            .exec(&self.pod, &self.command, &parameters)
            .await
            .map_err(|error| failed(error.into()))?;
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        // One more than allowed, so that a bundle that is too large is seen to be.
        let limit = MAX_BUNDLE_BYTES as u64 + 1;
        let (out, err) = (process.stdout(), process.stderr());
        let read_out = async {
            match out {
                Some(out) => out.take(limit).read_to_end(&mut stdout).await.map(drop),
                None => Ok(()),
            }
        };
        let read_err = async {
            match err {
                Some(err) => err.take(4096).read_to_end(&mut stderr).await.map(drop),
                None => Ok(()),
            }
        };
        tokio::try_join!(read_out, read_err).map_err(|error| failed(error.into()))?;
        let status = match process.take_status() {
            Some(status) => status.await,
            None => None,
        };
        if status.and_then(|status| status.status).as_deref() == Some("Success") {
            Ok(stdout)
        } else {
            Err(Error::Command {
                command: self.command.join(" "),
                pod: self.display_pod.clone(),
                stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
            })
        }
    }
}

impl BundleSource for Exec {
    async fn current(&self) -> Result<Vec<u8>, Error> {
        tokio::time::timeout(DEADLINE, self.run())
            .await
            .unwrap_or(Err(Error::Timeout(DEADLINE.as_secs())))
    }

    async fn changed(&self) {
        tokio::time::sleep(INTERVAL).await;
    }
}
