//! How the configuration names the repository, and what git makes of it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Publish};
use crate::{git, model::repository::Revision};

/// The repository.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Git {
    /// Its URL: `https://…`, `ssh://…` or `git@host:path`, or `git://…`.
    pub url: String,
    /// The reviewed branch.
    #[serde(default = "default_branch")]
    pub branch: String,
    /// What is applied instead of the branch's tip.
    #[serde(default)]
    pub pin: Option<Pin>,
    /// Where the mirror is kept; it can be lost without harm.
    pub state_dir: PathBuf,
    /// How often, in milliseconds, the remote's references are listed.
    #[serde(default = "default_poll")]
    pub poll_milliseconds: u64,
    /// For `https`: the user name, and the file that holds the token.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// For `https`: the file with certificate authorities (PEM) that are trusted besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// For `https`: the proxy on the way.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// For `ssh`.
    #[serde(default)]
    pub ssh: Option<Ssh>,
    /// Which commits are applied.
    #[serde(default)]
    pub verify: Verify,
}

/// What is applied instead of the branch's tip: exactly one of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// A tag, by its name.
    #[serde(default)]
    pub tag: Option<String>,
    /// A commit of the branch, by its whole name.
    #[serde(default)]
    pub commit: Option<String>,
}

/// A user name and a token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// The user name.
    pub username: String,
    /// The file that holds the token; it is read again for every connection.
    pub token_file: PathBuf,
}

/// An HTTP proxy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Its URL, without credentials.
    pub url: String,
    /// What it wants to be shown.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
}

/// A key, and the keys of hosts; both files are read again for every connection.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ssh {
    /// A private key without a passphrase.
    pub key_file: PathBuf,
    /// The keys that hosts may show, as OpenSSH's `known_hosts`.
    pub known_hosts_file: PathBuf,
}

/// A key for pushes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushKey {
    /// A private key without a passphrase; it is read again for every connection.
    pub key_file: PathBuf,
}

/// Which commits are applied.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// How much has to be signed.
    #[serde(default)]
    pub mode: VerifyMode,
    /// Who may sign, in OpenSSH's format; never a file of the repository itself.
    #[serde(default)]
    pub allowed_signers_file: Option<PathBuf>,
}

/// How much has to be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerifyMode {
    /// Nothing.
    #[default]
    None,
    /// The commit that is applied.
    Head,
}

fn default_branch() -> String {
    "main".to_owned()
}

fn default_poll() -> u64 {
    15_000
}

impl Git {
    /// What is wrong, and where, as a JSON pointer; only what one field alone does not tell.
    pub(super) fn problem(&self, publish: &Publish) -> Option<(&'static str, String)> {
        let wrong = |at, what: &str| Some((at, what.to_owned()));
        if self.basic_auth.is_some() && self.ssh.is_some() {
            return wrong("/git/ssh", "`git` has credentials for https and for ssh");
        }
        if publish.basic_auth.is_some() && publish.ssh.is_some() {
            return wrong(
                "/publish/ssh",
                "`publish` has credentials for https and for ssh",
            );
        }
        match &self.pin {
            Some(Pin {
                tag: None,
                commit: None,
            }) => return wrong("/git/pin", "`pin` names nothing: set `tag` or `commit`"),
            Some(Pin {
                tag: Some(_),
                commit: Some(_),
            }) => return wrong("/git/pin", "`pin` names two: set either `tag` or `commit`"),
            Some(Pin {
                commit: Some(commit),
                ..
            }) if Revision::parse(commit).is_err() => {
                return wrong("/git/pin/commit", "this is not the whole name of a commit");
            }
            _ => {}
        }
        if self.verify.mode == VerifyMode::Head && self.verify.allowed_signers_file.is_none() {
            return wrong(
                "/git/verify",
                "`verify` names nobody: set `allowedSignersFile`",
            );
        }
        let settings = self.settings(publish);
        let unsuited = settings.check().err()?;
        Some(("/git/url", unsuited.to_string()))
    }

    /// As git takes it.
    fn settings(&self, publish: &Publish) -> git::Settings {
        let directory = self.state_dir.join("mirror.git");
        let mut settings = git::Settings::new(&self.url, &self.branch, directory);
        let basic = |auth: &BasicAuth| git::BasicAuth {
            username: auth.username.clone(),
            token_file: auth.token_file.clone(),
        };
        let credentials = |auth: Option<&BasicAuth>, key: Option<&PathBuf>| match (auth, key) {
            (Some(auth), _) => Some(git::Credentials::Basic(basic(auth))),
            (None, Some(key)) => Some(git::Credentials::Key(key.clone())),
            (None, None) => None,
        };
        let key = self.ssh.as_ref().map(|ssh| &ssh.key_file);
        let push_key = publish.ssh.as_ref().map(|ssh| &ssh.key_file);
        settings.access = git::Access {
            read: credentials(self.basic_auth.as_ref(), key),
            write: credentials(publish.basic_auth.as_ref(), push_key),
            known_hosts: self.ssh.as_ref().map(|ssh| ssh.known_hosts_file.clone()),
            authorities: self.ca_file.clone(),
            proxy: self.proxy.as_ref().map(|proxy| git::Proxy {
                url: proxy.url.clone(),
                auth: proxy.basic_auth.as_ref().map(basic),
            }),
        };
        settings.pin = self.pin.as_ref().and_then(|pin| {
            let tag = pin.tag.clone().map(git::Pin::Tag);
            let commit = || Revision::parse(pin.commit.as_deref()?).ok();
            tag.or_else(|| commit().map(git::Pin::Commit))
        });
        if let (VerifyMode::Head, Some(file)) =
            (self.verify.mode, &self.verify.allowed_signers_file)
        {
            settings.policy = git::Policy::Head(file.clone());
        }
        settings
    }
}

impl Config {
    /// The repository, as git takes it.
    pub fn repository(&self) -> git::Settings {
        self.git.settings(&self.publish)
    }

    /// The files that are read again for every connection.
    pub(in crate::agent) fn credential_files(&self) -> Vec<PathBuf> {
        let (git, publish) = (&self.git, &self.publish);
        let tokens = [
            git.basic_auth.as_ref(),
            publish.basic_auth.as_ref(),
            git.proxy.as_ref().and_then(|it| it.basic_auth.as_ref()),
        ];
        let tokens = tokens.into_iter().flatten().map(|it| &it.token_file);
        let ssh = git.ssh.iter();
        let ssh = ssh.flat_map(|ssh| [&ssh.key_file, &ssh.known_hosts_file]);
        let push_key = publish.ssh.iter().map(|ssh| &ssh.key_file);
        let forge = publish.pull_request.iter().map(|it| &it.token_file);
        let signers = git.verify.allowed_signers_file.iter();
        tokens
            .chain(ssh)
            .chain(push_key)
            .chain(forge)
            .chain(signers)
            .chain(&git.ca_file)
            .cloned()
            .collect()
    }
}
