//! `trustweave bundle allowed-signers`.

use std::fmt::Write as _;

use clap::Args;

use super::{
    super::{Answer, output},
    source::Place,
};
use crate::model::{attestation::NAMESPACE, declaration::Signer, trust_domain::TrustDomain};

/// Print the declared signers for ssh-keygen and git
///
/// Writes an OpenSSH `allowed_signers` file: one line for each declared signer, with its trust
/// domain as the principal, valid for attestations and for git's commits. With it, anybody checks a
/// publication without Trustweave. A trust domain with several signers, as during the rotation of a
/// signing key, has several lines, and each of them suffices.
///
/// The signature covers `bundle.attestation.json`, which names the trust domain and the digest of
/// `bundle.json`: both have to be compared, too, as the examples do.
///
/// Exit codes: 0 printed; 1 printed, except for declarations that can't be used; 2 the repository or
/// a named declaration can't be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  The file:
    trustweave bundle allowed-signers > allowed_signers

  The publication of b.test:
    for file in bundle.json bundle.attestation.json bundle.attestation.json.sig; do
      git show origin/trustweave/b.test:$file > $file
    done

  Who signed the attestation:
    ssh-keygen -Y verify -f allowed_signers -I b.test -n bundle@trustweave.dev \\
      -s bundle.attestation.json.sig < bundle.attestation.json

  Whether it is about this bundle, and about b.test:
    sed -n 's/^  \"sha256\": \"\\(.*\\)\",$/\\1  bundle.json/p' bundle.attestation.json | sha256sum --check
    grep -x '  \"trustDomain\": \"b.test\",' bundle.attestation.json

  The commits of its agent:
    git -c gpg.ssh.allowedSignersFile=allowed_signers verify-commit origin/trustweave/b.test")]
pub(super) struct Arguments {
    /// Only these trust domains
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domains: Vec<TrustDomain>,

    #[command(flatten)]
    place: Place,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let source = self.place.open()?;
        let (declarations, incomplete) = source.named(&self.trust_domains)?;
        let mut text = String::new();
        for (trust_domain, declaration) in declarations {
            for signer in &declaration.signers {
                let _ = writeln!(
                    text,
                    "{trust_domain} namespaces=\"{NAMESPACE},git\" {}",
                    bare(signer)
                );
            }
        }
        output::data(&text)?;
        Ok(if incomplete { Answer::No } else { Answer::Yes })
    }
}

/// Algorithm and key. A comment is anybody's text, and could hold a line of its own.
fn bare(signer: &Signer) -> String {
    let line = signer.public_key().to_openssh().unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().take(2).collect();
    words.join(" ")
}
