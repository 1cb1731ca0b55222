//! Where people are asked to merge what the agent proposes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Config, Git, Publish, PublishBranch};
use crate::{forge, git};

/// A project of a forge, and the right to ask there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullRequest {
    /// `github`, `gitlab`, or `gitea`, also for Forgejo.
    pub forge: forge::Kind,
    /// The root of its REST API; without it, as `git.url` tells.
    #[serde(default)]
    pub api_url: Option<String>,
    /// The project, as `owner/name`; without it, as `git.url` tells.
    #[serde(default)]
    pub project: Option<String>,
    /// The file that holds the token; it is read again for every call.
    pub token_file: PathBuf,
}

impl PullRequest {
    /// Where the project's API is.
    fn address(&self, git: &Git) -> Result<forge::Address, String> {
        let url = git::parse_url(&git.url).map_err(|error| error.to_string())?;
        let (api, project) = (self.api_url.as_deref(), self.project.as_deref());
        forge::Address::of(self.forge, &url, api, project).map_err(|unclear| unclear.to_string())
    }
}

impl Publish {
    /// What is wrong, and where, as a JSON pointer; only what one field alone does not tell.
    pub(super) fn problem(&self, git: &Git) -> Option<(&'static str, String)> {
        let wrong = |at, what: &str| Some((at, what.to_owned()));
        match (self.branch, &self.pull_request) {
            (PublishBranch::PullRequest, None) => wrong(
                "/publish/branch",
                "set `pullRequest`: it says which forge is asked, and by which token",
            ),
            (PublishBranch::Own | PublishBranch::Main, Some(_)) => wrong(
                "/publish/pullRequest",
                "nobody is asked unless `branch` is `pullRequest`",
            ),
            (PublishBranch::PullRequest, Some(asked)) => {
                let unclear = asked.address(git).err()?;
                Some(("/publish/pullRequest", unclear))
            }
            (PublishBranch::Own | PublishBranch::Main, None) => None,
        }
    }
}

impl Config {
    /// The forge where people are asked, if they are.
    pub fn forge(&self) -> Option<forge::Settings> {
        let asked = self.publish.pull_request.as_ref()?;
        let address = asked.address(&self.git).ok()?;
        let mut settings = forge::Settings::new(asked.forge, address, asked.token_file.clone());
        settings.authorities.clone_from(&self.git.ca_file);
        settings.proxy = self.git.proxy.as_ref().map(|proxy| forge::Proxy {
            url: proxy.url.clone(),
            auth: proxy
                .basic_auth
                .as_ref()
                .map(|auth| (auth.username.clone(), auth.token_file.clone())),
        });
        Some(settings)
    }
}
