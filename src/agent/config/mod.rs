//! The agent's configuration file.
//!
//! It names the trust domain and the cluster: who the agent is must not come from the repository
//! that it checks.

mod git;
mod pull_request;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    git::{BasicAuth, Git, Pin, Proxy, PushKey, Ssh, Verify, VerifyMode},
    pull_request::PullRequest,
};
use crate::{
    model::{
        declaration::API_VERSION,
        diagnostic::{Code, Diagnostic},
        repository::RepoPath,
        trust_domain::{ClusterName, TrustDomain},
        yaml,
    },
    reconcile::settings::Applying,
};

/// The `kind` of the document.
pub const KIND: &str = "AgentConfig";

/// The configuration file of `trustweave agent`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// `trustweave.dev/v1alpha1`.
    pub api_version: String,
    /// `AgentConfig`.
    pub kind: String,
    /// The cluster that this agent serves: it applies `clusters/<cluster>`.
    pub cluster: ClusterName,
    /// The trust domain of the cluster's SPIRE.
    pub trust_domain: TrustDomain,
    /// The repository.
    pub git: Git,
    /// How the cluster's API is reached; in a pod, nothing need be said.
    #[serde(default)]
    pub kubernetes: Kubernetes,
    /// The key that signs bundles and commits. Without it the agent does not publish.
    #[serde(default)]
    pub signing: Option<Signing>,
    /// Where bundles are published, and as whom.
    #[serde(default)]
    pub publish: Publish,
    /// Which of several agents of the cluster writes.
    #[serde(default)]
    pub leader_election: LeaderElection,
    /// The pods by which probes see whether SPIRE holds a peer's bundle: the agent's own.
    #[serde(default)]
    pub probe: Probe,
    /// How the overlay's objects are applied.
    #[serde(default)]
    pub applying: Applying,
    /// The SPIFFE Workload API, to read back what a workload holds.
    #[serde(default)]
    pub workload_api: Option<WorkloadApi>,
    /// Where a git server may ask to be looked at.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// The status page; without it there is none.
    #[serde(default)]
    pub page: Option<Page>,
    /// Where health, readiness and metrics are served.
    #[serde(default = "default_listen")]
    pub listen: std::net::SocketAddr,
}

/// How the cluster's API is reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kubernetes {
    /// A kubeconfig file; without it the pod's service account, else the user's default.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it.
    pub context: Option<String>,
    /// The `ServiceAccount`, in the agent's namespace, that the overlay's objects are applied as.
    /// There is no way to apply them with the agent's own rights.
    pub sync_service_account: String,
}

impl Default for Kubernetes {
    /// As `deploy/` has it.
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            sync_service_account: "trustweave-sync".to_owned(),
        }
    }
}

/// Which of several agents of the cluster writes: who holds a `Lease`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElection {
    /// Without it: if the agent was given a name of its own (`--name`), as in a pod of `deploy/`.
    pub enabled: Option<bool>,
    /// The `Lease`.
    pub lease_name: String,
    /// Its namespace; without it the agent's own.
    pub namespace: Option<String>,
}

impl Default for LeaderElection {
    /// As `deploy/` has it.
    fn default() -> Self {
        Self {
            enabled: None,
            lease_name: "trustweave".to_owned(),
            namespace: None,
        }
    }
}

/// The key that signs: exactly one of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signing {
    /// An SSH private key in OpenSSH's format, without a passphrase.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// A Secret that holds it; the agent makes one with a new key if there is none.
    #[serde(default)]
    pub secret: Option<SigningSecret>,
}

/// The Secret that holds the signing key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigningSecret {
    /// Its namespace; without it the agent's own.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name; `deploy/signing-key` grants access to `trustweave-signing`.
    pub name: String,
    /// The key in it that holds the private key, in the same format as a file.
    #[serde(default = "default_secret_key")]
    pub key: String,
}

/// Where bundles are published, and as whom.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publish {
    /// The trust domain's own branch, or its directory on the reviewed branch.
    #[serde(default)]
    pub branch: PublishBranch,
    /// Where people are asked to merge, with `branch: pullRequest`.
    #[serde(default)]
    pub pull_request: Option<PullRequest>,
    /// For pushes; without it, `git.basicAuth`.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// The same for `ssh`; without it, the key of `git.ssh`.
    #[serde(default)]
    pub ssh: Option<PushKey>,
}

/// Where bundles are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PublishBranch {
    /// `trustweave/<trust-domain>`, which only this agent writes.
    #[default]
    Own,
    /// `trust-domains/<trust-domain>` on the reviewed branch: needs a wider credential.
    Main,
    /// The same place, by a pull request from `trustweave-proposals/<trust-domain>`.
    PullRequest,
}

/// The pods that probes select.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    /// Their namespace.
    pub namespace: String,
    /// The name of one of their labels.
    pub label: String,
    /// The label's value.
    pub value: String,
}

impl Default for Probe {
    /// The agent's own pods, as `deploy/` labels them.
    fn default() -> Self {
        Self {
            namespace: "trustweave-system".to_owned(),
            label: "app.kubernetes.io/name".to_owned(),
            value: "trustweave".to_owned(),
        }
    }
}

/// The receiver of webhooks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Where it listens: a port of its own, as others may reach it than those who read metrics.
    #[serde(default = "default_webhook_listen")]
    pub listen: std::net::SocketAddr,
    /// The file with the secrets that may sign, one a line; it is read again for every request.
    pub secret_file: PathBuf,
    /// `host:port` of all replicas, which a call is passed on to: it reaches one of them, and another
    /// one may be who writes.
    #[serde(default)]
    pub relay_to: Option<String>,
}

/// The status page, for people.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Page {
    /// Where it is served. On loopback, which is the default, only who may forward ports to the
    /// agent's pods sees it; elsewhere, everybody who reaches the address.
    #[serde(default = "default_page_listen")]
    pub listen: std::net::SocketAddr,
}

/// The SPIFFE Workload API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadApi {
    /// Its Unix domain socket.
    pub socket: PathBuf,
}

fn default_listen() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([0, 0, 0, 0], 8080))
}

fn default_webhook_listen() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([0, 0, 0, 0], 8081))
}

fn default_page_listen() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], 8082))
}

fn default_secret_key() -> String {
    "id_ed25519".to_owned()
}

/// Parses the file's text; `name` is what diagnostics call it.
pub fn parse(name: &str, text: &str) -> Result<Config, Diagnostic> {
    let path = RepoPath::parse(name.trim_start_matches('/')).unwrap_or_default();
    let documents = yaml::parse(&path, text)?;
    let [document] = documents.as_slice() else {
        return Err(Diagnostic::error(
            Code::WrongKind,
            &path,
            "not exactly one document",
        ));
    };
    let config: Config = document.decode(&path)?;
    for (pointer, found, expected) in [
        ("/apiVersion", &config.api_version, API_VERSION),
        ("/kind", &config.kind, KIND),
    ] {
        if found != expected {
            return Err(Diagnostic::error(
                Code::WrongKind,
                &path,
                format!("`{}` is `{found}`, not `{expected}`", &pointer[1..]),
            )
            .at(document.position_of(pointer)));
        }
    }
    if config.kubernetes.sync_service_account.is_empty() {
        let message = "`syncServiceAccount` names nobody: leave it out for `trustweave-sync`";
        return Err(Diagnostic::error(Code::InvalidValue, &path, message)
            .at(document.position_of("/kubernetes/syncServiceAccount")));
    }
    if !(1..=100).contains(&config.applying.prune_percent) {
        let message = "`prunePercent` is a share in percent, 1 to 100";
        return Err(Diagnostic::error(Code::InvalidValue, &path, message)
            .at(document.position_of("/applying/prunePercent")));
    }
    let both = match config.signing.as_ref().map(|s| (&s.key_file, &s.secret)) {
        Some((None, None)) => Some("`signing` names no key: set `keyFile` or `secret`"),
        Some((Some(_), Some(_))) => {
            Some("`signing` names two keys: set either `keyFile` or `secret`")
        }
        _ => None,
    };
    if let Some(message) = both {
        return Err(Diagnostic::error(Code::InvalidValue, &path, message)
            .at(document.position_of("/signing")));
    }
    let problem = config.git.problem(&config.publish);
    if let Some((pointer, message)) = problem.or_else(|| config.publish.problem(&config.git)) {
        return Err(
            Diagnostic::error(Code::InvalidValue, &path, message).at(document.position_of(pointer))
        );
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str) -> Result<Config, String> {
        let text = format!(
            "apiVersion: trustweave.dev/v1alpha1\nkind: AgentConfig\ncluster: a\n\
             trustDomain: a.test\ngit: {{url: 'https://git.example/r', stateDir: /tmp}}\n\
             {line}\n"
        );
        parse("config.yaml", &text).map_err(|diagnostic| diagnostic.to_string())
    }

    fn signing(text: &str) -> Result<Signing, String> {
        with(&format!("signing: {text}")).map(|config| config.signing.unwrap())
    }

    #[test]
    fn overlays_are_never_applied_with_the_agents_own_rights() {
        for unsaid in ["", "kubernetes: {}", "kubernetes: {context: x}"] {
            let account = with(unsaid).unwrap().kubernetes.sync_service_account;
            assert_eq!(account, "trustweave-sync");
        }
        let nobody = with("kubernetes: {syncServiceAccount: ''}").unwrap_err();
        assert!(nobody.contains("config.yaml:6:34"), "{nobody}");
        assert!(nobody.contains("names nobody"), "{nobody}");
    }

    /// The text of a configuration whose fields of `git` and `publish` are these.
    fn with_git(git: &str, publish: &str) -> Result<Config, String> {
        let text = format!(
            "apiVersion: trustweave.dev/v1alpha1\nkind: AgentConfig\ncluster: a\n\
             trustDomain: a.test\ngit: {{stateDir: /tmp, {git}}}\npublish: {{{publish}}}\n"
        );
        parse("config.yaml", &text).map_err(|diagnostic| diagnostic.to_string())
    }

    #[test]
    fn the_repository_is_named_in_one_safe_way() {
        let https = "url: 'https://h/r'";
        let ssh = "url: 'ssh://git@h/r', ssh: {keyFile: /k, knownHostsFile: /h}";
        let commit = "0123456789012345678901234567890123456789";
        for (git, publish) in [
            (https.to_owned(), ""),
            (
                format!("{https}, caFile: /ca, basicAuth: {{username: u, tokenFile: /t}}"),
                "",
            ),
            (format!("{https}, proxy: {{url: 'http://p:3128'}}"), ""),
            (ssh.to_owned(), "ssh: {keyFile: /p}"),
            (format!("{https}, pin: {{tag: v1}}"), ""),
            (format!("{https}, pin: {{commit: '{commit}'}}"), ""),
            (
                format!("{https}, verify: {{mode: head, allowedSignersFile: /s}}"),
                "",
            ),
            (format!("{https}, verify: {{mode: none}}"), ""),
        ] {
            let found = with_git(&git, publish).map(drop);
            assert_eq!(found, Ok(()), "{git}");
        }
        for (git, publish, why) in [
            (
                "url: 'ssh://git@h/r'",
                "",
                "config.yaml:5:28: error[invalid-value]: `ssh` needs a known_hosts file",
            ),
            ("url: 'http://h/r'", "", "use https"),
            (
                ssh,
                "basicAuth: {username: u, tokenFile: /t}",
                "`ssh` takes a key",
            ),
            (https, "ssh: {keyFile: /k}", "`https` takes a token"),
            (
                &format!("{ssh}, basicAuth: {{username: u, tokenFile: /t}}"),
                "",
                "for https and for ssh",
            ),
            (&format!("{https}, pin: {{}}"), "", "`pin` names nothing"),
            (
                &format!("{https}, pin: {{tag: a, commit: b}}"),
                "",
                "`pin` names two",
            ),
            (
                &format!("{https}, pin: {{commit: abc}}"),
                "",
                "not the whole name",
            ),
            (
                &format!("{https}, verify: {{mode: head}}"),
                "",
                "set `allowedSignersFile`",
            ),
            (
                &format!("{https}, verify: {{mode: sometimes}}"),
                "",
                "sometimes",
            ),
        ] {
            let error = with_git(git, publish).unwrap_err();
            assert!(error.contains(why), "{git}: {error}");
        }
    }

    #[test]
    fn pull_requests_are_asked_for_in_a_place_that_is_known() {
        let https = "url: 'https://github.com/o/r.git'";
        let with = |more: &str| format!("branch: pullRequest, pullRequest: {{{more}}}");
        let forge = |git: &str, more: &str| {
            let config = with_git(git, &with(&format!("tokenFile: /f, {more}")))?;
            let forge = config.forge().unwrap();
            Ok::<_, String>(format!("{} {}", forge.address.api, forge.address.project))
        };
        let found = forge(https, "forge: github");
        assert_eq!(found, Ok("https://api.github.com/ o/r".to_owned()));
        let ssh = "url: 'git@h:g/s/r.git', ssh: {keyFile: /k, knownHostsFile: /h}";
        let found = forge(ssh, "forge: gitlab");
        assert_eq!(found, Ok("https://h/api/v4 g/s/r".to_owned()));
        let found = forge(
            "url: 'git://h/r'",
            "forge: forgejo, apiUrl: 'https://h/api/v1', project: o/r",
        );
        assert_eq!(found, Ok("https://h/api/v1 o/r".to_owned()));
        assert!(with_git(https, "branch: main").unwrap().forge().is_none());

        let github = "forge: github, tokenFile: /f";
        for (git, publish, why) in [
            (
                https,
                "branch: pullRequest",
                "config.yaml:6:19: error[invalid-value]: set `pullRequest`",
            ),
            (
                https,
                &format!("pullRequest: {{{github}}}"),
                "config.yaml:6:24: error[invalid-value]: nobody is asked",
            ),
            (https, &with("forge: github"), "tokenFile"),
            (https, &with("forge: svn, tokenFile: /f"), "svn"),
            (
                "url: 'git://h/o/r'",
                &with(github),
                "config.yaml:6:45: error[invalid-value]: where the forge's API is",
            ),
            (
                https,
                &with(&format!("{github}, apiUrl: 'http://h'")),
                "unprotected",
            ),
            (
                "url: 'https://github.com/r'",
                &with(github),
                "set `project`",
            ),
        ] {
            let error = with_git(git, publish).unwrap_err();
            assert!(error.contains(why), "{publish}: {error}");
        }
    }

    #[test]
    fn every_credential_is_watched() {
        let files = with_git(
            "url: 'ssh://git@h/r', ssh: {keyFile: /k, knownHostsFile: /h}, caFile: /ca, \
             verify: {mode: head, allowedSignersFile: /s}",
            "ssh: {keyFile: /p}, branch: pullRequest, \
             pullRequest: {forge: gitea, project: o/r, tokenFile: /f}",
        );
        let files = files.unwrap().credential_files();
        let expected = ["/k", "/h", "/p", "/f", "/s", "/ca"].map(PathBuf::from);
        assert_eq!(files, expected);
    }

    #[test]
    fn how_objects_are_applied_has_defaults_and_bounds() {
        let applying = with("applying: {driftGraceSeconds: 0}").unwrap().applying;
        assert_eq!(
            (applying.drift_grace_seconds, applying.prune_percent),
            (0, 30)
        );
        for wrong in ["{prunePercent: 0}", "{prunePercent: 101}", "{grace: 1}"] {
            assert!(with(&format!("applying: {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_page_is_served_to_who_may_forward_ports() {
        assert!(with("").unwrap().page.is_none());
        let page = with("page: {}").unwrap().page.unwrap();
        assert!(page.listen.ip().is_loopback());
        let page = with("page: {listen: '[::]:80'}").unwrap().page.unwrap();
        assert_eq!(page.listen.to_string(), "[::]:80");
    }

    #[test]
    fn the_signing_key_is_in_exactly_one_place() {
        let file = signing("{keyFile: /k}").unwrap();
        assert_eq!(file.key_file, Some(PathBuf::from("/k")));
        let secret = signing("{secret: {name: s}}").unwrap().secret.unwrap();
        assert_eq!(
            (secret.name.as_str(), secret.key.as_str()),
            ("s", "id_ed25519")
        );
        assert_eq!(secret.namespace, None);
        for (wrong, why) in [
            (
                "{}",
                "config.yaml:6:10: error[invalid-value]: `signing` names no key",
            ),
            ("{keyFile: /k, secret: {name: s}}", "names two keys"),
            ("{secret: {}}", "`name`"),
            ("{secret: {name: s, value: x}}", "secret.value"),
        ] {
            let error = signing(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
