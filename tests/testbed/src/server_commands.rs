//! What can be asked of a SPIRE server by its own program, wherever it runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::process::run_with_input;
use crate::reaper::Reaper;

/// The subcommands of `spire-server` against one running server.
pub struct ServerCommands {
    program: PathBuf,
    /// Arguments in front of the subcommand, and behind it.
    before: Vec<OsString>,
    after: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    reaper: Arc<Reaper>,
}

impl ServerCommands {
    pub(crate) fn new(
        reaper: &Arc<Reaper>,
        program: PathBuf,
        before: Vec<OsString>,
        after: Vec<OsString>,
    ) -> Self {
        Self {
            program,
            before,
            after,
            environment: Vec::new(),
            reaper: Arc::clone(reaper),
        }
    }

    pub(crate) fn with_environment(
        mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        self.environment.extend(environment);
        self
    }

    /// Runs a subcommand and returns its stdout.
    pub async fn server(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(arguments, String::new()).await
    }

    async fn run(&self, arguments: &[&str], input: String) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command
            .envs(environment)
            .args(&self.before)
            .args(arguments)
            // Flags come last.
            .args(&self.after);
        run_with_input(&self.reaper, command, input.into_bytes()).await
    }

    /// The server's current bundle in SPIFFE's format.
    pub async fn own_bundle(&self) -> anyhow::Result<Value> {
        parse(
            &self
                .server(&["bundle", "show", "-format", "spiffe"])
                .await?,
        )
    }

    /// The bundle that the server has of another trust domain.
    pub async fn federated_bundle(&self, trust_domain: &str) -> anyhow::Result<Option<Value>> {
        let id = format!("spiffe://{trust_domain}");
        match self
            .server(&["bundle", "list", "-format", "spiffe", "-id", &id])
            .await
        {
            Ok(bundle) => parse(&bundle).map(Some),
            Err(error) if format!("{error:#}").to_lowercase().contains("not found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The federation relationships that the server has.
    pub async fn federation(&self) -> anyhow::Result<Vec<Value>> {
        let mut list = parse(
            &self
                .server(&["federation", "list", "-output", "json"])
                .await?,
        )?;
        Ok(array(&mut list, "federation_relationships"))
    }

    /// The registration entries that the server has.
    pub async fn entries(&self) -> anyhow::Result<Vec<Value>> {
        let mut list = parse(&self.server(&["entry", "show", "-output", "json"]).await?)?;
        Ok(array(&mut list, "entries"))
    }

    /// The registration entries that federate with a trust domain.
    pub async fn entries_federating_with(&self, trust_domain: &str) -> anyhow::Result<Vec<Value>> {
        let id = format!("spiffe://{trust_domain}");
        let arguments = ["entry", "show", "-federatesWith", &id, "-output", "json"];
        let mut list = parse(&self.server(&arguments).await?)?;
        Ok(array(&mut list, "entries"))
    }

    /// The trust domains that the server has bundles of, its own not among them.
    pub async fn federated_trust_domains(&self) -> anyhow::Result<Vec<String>> {
        let list = parse(&self.server(&["bundle", "list", "-output", "json"]).await?)?;
        let bundles = list["bundles"].as_array().into_iter().flatten();
        Ok(bundles
            .filter_map(|bundle| bundle["trust_domain"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Sets the server's bundle of another trust domain by hand, whatever it is.
    pub async fn set_federated_bundle(
        &self,
        trust_domain: &str,
        bundle: &Value,
    ) -> anyhow::Result<()> {
        let id = format!("spiffe://{trust_domain}");
        let arguments = ["bundle", "set", "-format", "spiffe", "-id", &id];
        self.run(&arguments, bundle.to_string()).await?;
        Ok(())
    }

    /// Prepares a new X.509 authority: the bundle has two from now on. Returns its id.
    pub async fn rotate_x509(&self) -> anyhow::Result<String> {
        let prepared = parse(
            &self
                .server(&["localauthority", "x509", "prepare", "-output", "json"])
                .await?,
        )?;
        authority_id(&prepared, "prepared_authority")
    }

    /// Has the prepared authority sign from now on; the old one stays in the bundle. Returns the new one's id.
    ///
    /// An agent that has not yet synchronized the prepared authority no longer trusts the server then, and ends.
    pub async fn activate_prepared_x509(&self) -> anyhow::Result<String> {
        let shown = parse(
            &self
                .server(&["localauthority", "x509", "show", "-output", "json"])
                .await?,
        )?;
        let id = authority_id(&shown, "prepared")?;
        self.server(&["localauthority", "x509", "activate", "-authorityID", &id])
            .await?;
        Ok(id)
    }
}

pub(crate) fn parse(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))
}

fn array(list: &mut Value, key: &str) -> Vec<Value> {
    match list.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn authority_id(answer: &Value, authority: &str) -> anyhow::Result<String> {
    match answer[authority]["authority_id"].as_str() {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => bail!("spire-server names no {authority}: {answer}"),
    }
}
