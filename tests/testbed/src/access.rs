//! How the testbed and its tests talk to an API server.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::crds;
use crate::process::{Process, arguments, run_with_input};
use crate::reaper::Reaper;
use crate::server_commands::ServerCommands;

/// Long enough for an API server on a machine that is busy compiling.
pub(crate) const START: Duration = Duration::from_secs(90);

/// An API server, and what it takes to have all rights there.
pub(crate) struct Access {
    pub(crate) url: String,
    /// A kubeconfig with all rights.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) client: Client,
    /// The certificate authority, as PEM.
    pub(crate) authority: String,
    /// Where kubeconfigs are written.
    directory: PathBuf,
    kubectl: PathBuf,
    reaper: Arc<Reaper>,
}

impl Access {
    /// Writes `admin.kubeconfig`; the API server need not run yet.
    pub(crate) async fn new(
        reaper: &Arc<Reaper>,
        directory: &Path,
        kubectl: PathBuf,
        url: String,
        authority: String,
        token: &str,
    ) -> anyhow::Result<Self> {
        let path = directory.join("admin.kubeconfig");
        let content = kubeconfig(&url, &authority, token, "default");
        write(&path, &content.to_string())?;
        Ok(Self {
            url,
            kubeconfig: path,
            client: client(content).await?,
            authority,
            directory: directory.to_owned(),
            kubectl,
            reaper: Arc::clone(reaper),
        })
    }

    /// Runs kubectl with all rights and returns its stdout.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with_input(arguments, &[]).await
    }

    /// Applies manifests as `kubectl apply -f -` does.
    pub(crate) async fn kubectl_apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml.as_bytes())
            .await
    }

    /// Runs kubectl with something to read.
    pub(crate) async fn kubectl_with_input(
        &self,
        arguments: &[&str],
        input: &[u8],
    ) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command.envs(self.environment()).args(arguments);
        run_with_input(&self.reaper, command, input.to_vec()).await
    }

    /// What gives kubectl all rights here, and none of the user's settings.
    fn environment(&self) -> [(OsString, OsString); 3] {
        [
            // Its discovery cache would be shared with the user's clusters otherwise.
            (
                "KUBECACHEDIR".into(),
                self.directory.join("kubectl-cache").into(),
            ),
            ("KUBECONFIG".into(), self.kubeconfig.clone().into()),
            ("KUBERC".into(), "off".into()),
        ]
    }

    /// A program that runs in a container, by its commands.
    pub(crate) fn server_commands(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        program: &str,
    ) -> ServerCommands {
        let before = arguments![
            "exec",
            "--stdin",
            format!("--namespace={namespace}"),
            pod,
            format!("--container={container}"),
            "--",
            program,
        ];
        ServerCommands::new(&self.reaper, self.kubectl.clone(), before, Vec::new())
            .with_environment(self.environment())
    }

    /// Waits until all pods of a workload are of its current template, and ready. The error shows what is there.
    pub(crate) async fn until_rolled_out(
        &self,
        namespace: &str,
        workload: &str,
    ) -> anyhow::Result<()> {
        let namespace = format!("--namespace={namespace}");
        let timeout = format!("--timeout={}s", START.as_secs());
        let waited = self
            .kubectl(&["rollout", "status", workload, &namespace, &timeout])
            .await;
        if let Err(error) = waited {
            let seen = ["get", "pods,events", &namespace, "--output=wide"];
            let seen = self.kubectl(&seen).await.unwrap_or_default();
            return Err(error.context(format!("{workload} is not rolled out:\n{seen}")));
        }
        Ok(())
    }

    /// A kubeconfig with the rights of one `ServiceAccount`, which must exist, and no others.
    pub(crate) async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(24 * 60 * 60),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("cannot get a token of ServiceAccount {namespace}/{name}"))?
            .status
            .and_then(|status| status.token)
            .context("the API server gave no token")?;
        let path = self
            .directory
            .join(format!("{namespace}-{name}.kubeconfig"));
        let content = kubeconfig(&self.url, &self.authority, &token, namespace);
        write(&path, &content.to_string())?;
        Ok(path)
    }

    /// Waits until the API server is ready; `api_server` is its process.
    pub(crate) async fn until_ready(&self, api_server: &Process) -> anyhow::Result<()> {
        api_server.until_ready(START, || self.is_ready()).await
    }

    /// Whether the API server is ready.
    pub(crate) async fn is_ready(&self) -> anyhow::Result<Option<()>> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let answer = self.client.request_text(request).await?;
        anyhow::ensure!(answer == "ok", "/readyz says {answer}");
        Ok(Some(()))
    }

    /// Installs the `CustomResourceDefinition`s of a directory, and waits until they are served.
    pub(crate) async fn install_crds(&self, directory: &Path) -> anyhow::Result<()> {
        crds::install(&self.client, &crds::read(directory)?).await
    }

    /// Makes sure that there is a namespace.
    pub(crate) async fn create_namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        });
        namespaces
            .patch(name, &field_manager(), &Patch::Apply(&namespace))
            .await
            .with_context(|| format!("cannot create namespace {name}"))?;
        Ok(())
    }
}

/// Who the testbed's own objects are managed by.
pub(crate) fn field_manager() -> PatchParams {
    PatchParams::apply("trustweave-testbed").force()
}

/// JSON is YAML, so it is a kubeconfig for every client.
pub(crate) fn kubeconfig(url: &str, authority: &str, token: &str, namespace: &str) -> Value {
    use base64::Engine as _;

    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": "testbed", "user": {"token": token}}],
        "contexts": [{
            "name": "testbed",
            "context": {"cluster": "testbed", "user": "testbed", "namespace": namespace},
        }],
        "current-context": "testbed",
    })
}

async fn client(kubeconfig: Value) -> anyhow::Result<Client> {
    // Somebody else may have installed it already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("cannot read the kubeconfig")?;
    Client::try_from(config).context("cannot make a Kubernetes client")
}

pub(crate) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
