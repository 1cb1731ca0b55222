//! `trustweave init`.

use std::fmt::Write as _;

use clap::Args;

use super::{Answer, Connection, block_on, output};
use crate::{
    cluster::{
        Cluster as _, KubeCluster,
        secret::{SecretKey as _, SecretValue},
        types::{self, GitSyncStatus},
    },
    model::{
        declaration::Signer,
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// Where `deploy/` has the agent keep its key, and its public half beside it.
const SECRET: (&str, &str, &str) = ("trustweave-system", "trustweave-signing", "id_ed25519.pub");

/// Propose the declaration of a cluster's trust domain
///
/// Prints a `trust-domain.yaml` with what the cluster's agent reports: the cluster, its trust domain
/// and the public key that the agent signs with. What can't be known is left empty, each told on
/// standard error; `trustweave check` refuses the file until it is filled in.
///
/// Exit codes: 0 cluster, trust domain and signer are known, 1 one of them is not, 2 the cluster can't
/// be asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave init --from-cluster
  trustweave init --from-cluster --context admin@cluster-2 --trust-domain b.example.org")]
pub(super) struct Arguments {
    /// Ask the agent of a running cluster
    #[arg(long, required = true)]
    from_cluster: bool,

    #[command(flatten)]
    connection: Connection,

    /// The cluster's name, if its agent has not reported it
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    /// The trust domain of the cluster's SPIRE, if its agent has not reported it
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
}

/// What is known; what is not is empty.
#[derive(Debug, Default)]
struct Known {
    cluster: Option<String>,
    trust_domain: Option<String>,
    signer: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let mut known = block_on(self.read())??;
        // What is said here is meant, also where the agent says another thing.
        let (cluster, trust_domain) = (self.cluster, self.trust_domain);
        known.cluster = cluster.map(Into::into).or(known.cluster);
        known.trust_domain = trust_domain.map(Into::into).or(known.trust_domain);
        let (proposal, notes) = propose(&known);
        for note in &notes {
            output::note(&format!("note: {note}"));
        }
        output::data(&proposal)?;
        let complete =
            known.cluster.is_some() && known.trust_domain.is_some() && known.signer.is_some();
        Ok(if complete { Answer::Yes } else { Answer::No })
    }

    async fn read(&self) -> anyhow::Result<Known> {
        let cluster = self.connection.connect().await?;
        let git_sync = match cluster.get(&types::git_sync_reference()).await {
            Err(crate::cluster::Error::UnknownKind(_)) => None,
            found => found?,
        };
        let status = git_sync.and_then(|mut object| object.get_mut("status").map(std::mem::take));
        let status: GitSyncStatus = status
            .and_then(|status| serde_json::from_value(status).ok())
            .unwrap_or_default();
        let stated = |text: String| (!text.is_empty()).then_some(text);
        let signer = match status.signer {
            Some(signer) => Some(signer),
            None => kept(&cluster).await,
        };
        Ok(Known {
            cluster: stated(status.cluster),
            trust_domain: stated(status.trust_domain),
            signer,
        })
    }
}

/// The public half that the agent put beside its key, if there is one that may be read.
async fn kept(cluster: &KubeCluster) -> Option<String> {
    let (namespace, name, key) = SECRET;
    let SecretValue::Bytes(line) = cluster
        .secret_key(Some(namespace), name, key)
        .read()
        .await
        .ok()?
    else {
        return None;
    };
    let signer = Signer::parse(std::str::from_utf8(&line).ok()?).ok()?;
    Some(signer.into())
}

/// The proposed file, and what it lacks.
fn propose(known: &Known) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    let mut value = |value: &Option<String>, missing: &str| {
        if let Some(value) = value {
            format!(" {value}")
        } else {
            notes.push(missing.to_owned());
            String::new()
        }
    };
    let trust_domain = value(
        &known.trust_domain,
        "the trust domain is not known: say it with --trust-domain",
    );
    let cluster = value(
        &known.cluster,
        "the cluster's name is not known: say it with --cluster",
    );
    let signer = value(
        &known.signer,
        "the signer is not known: the agent has not reported its key yet. Install and start it \
         (deploy/README.md), and ask again, or put the public half of its key here",
    );
    notes.push("`spire` is not looked up yet: distribution, namespace and className".to_owned());
    let mut text = String::new();
    let path = known.trust_domain.as_deref().unwrap_or("<trust-domain>");
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\
# trust-domains/{path}/trust-domain.yaml
apiVersion: trustweave.dev/v1alpha1
kind: TrustDomain
metadata:
  name:{trust_domain}
spec:
  clusters:
    - name:{cluster}
  spire:
    distribution:  # ztwim, helm or custom
    namespace:     # where the SPIRE server runs
    className:     # what its controller manager reconciles
  # No endpoint: peers learn the bundle from git alone. With one, SPIRE polls it too.
  bundleEndpoint: none
  signers:
    -{signer}
  # Trust domains by name; an edge of the topology is active once both sides consent.
  consent:
    import: []
    export: []
"
    );
    (text, notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        declaration::{Envelope, TrustDomainSpec},
        diagnostic::Diagnostic,
        repository::RepoPath,
        yaml,
    };

    const SIGNER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr trustweave@a";

    fn decode(text: &str) -> Result<Envelope<TrustDomainSpec>, Diagnostic> {
        let path = RepoPath::parse("trust-domain.yaml").unwrap();
        yaml::parse(&path, text)?[0].decode(&path)
    }

    #[test]
    fn what_is_not_known_is_told_and_does_not_pass() {
        let (text, notes) = propose(&Known::default());
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(notes[2].contains("deploy/README.md"), "{notes:?}");
        let name = decode(&text).unwrap_err();
        assert!(name.to_string().contains(":5:"), "{name}");
    }

    #[test]
    fn filled_in_it_is_a_declaration() {
        let known = Known {
            cluster: Some("a".to_owned()),
            trust_domain: Some("a.test".to_owned()),
            signer: Some(SIGNER.to_owned()),
        };
        let (text, notes) = propose(&known);
        assert_eq!(notes.len(), 1, "{notes:?}");
        decode(&text).unwrap_err();
        let filled = text
            .replace("distribution:", "distribution: custom")
            .replace("namespace:", "namespace: spire")
            .replace("className:", "className: spire");
        let declared = decode(&filled).unwrap();
        assert_eq!(declared.metadata.name, "a.test");
        assert_eq!(declared.spec.clusters[0].name.as_str(), "a");
        assert_eq!(String::from(declared.spec.signers[0].clone()), SIGNER);
    }
}
