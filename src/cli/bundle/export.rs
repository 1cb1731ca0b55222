//! `trustweave bundle export`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{
    super::{Answer, check::now, output},
    source::Place,
};
use crate::model::{
    attestation::{self, Rejection},
    bundle_set::{BundleSet, Carried},
    trust_domain::TrustDomain,
};

/// Write publications into one file, to carry them where no link leads
///
/// Writes a `BundleSet`, a JSON document with what each trust domain publishes: bundle, attestation
/// and signature, byte by byte. Take it to a repository that the publishers do not reach, and
/// `trustweave bundle import` it there. The set needs no protection on its way: every publication
/// carries its own signature, and is verified again at the other end.
///
/// Publications are found as `trustweave bundle show` finds them, and only verified ones get into the
/// set; what is refused is told, with the reason. Without names, a trust domain that has published
/// nothing yet is left out without further ado.
///
/// Exit codes: 0 everything that was asked for is in the set; 1 something was refused (the set holds
/// the rest; no set is written if nothing is left); 2 the repository or a named declaration can't be
/// read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave bundle export --output bundles.json
  trustweave bundle export a.test b.test --declarations origin/main > bundles.json")]
pub(super) struct Arguments {
    /// Only these trust domains
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domains: Vec<TrustDomain>,

    #[command(flatten)]
    place: Place,

    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let source = self.place.open()?;
        let now = now();
        let (declarations, mut refused) = source.named(&self.trust_domains)?;
        let mut publications = Vec::new();
        for (trust_domain, declaration) in declarations {
            let found = source.find(&trust_domain)?;
            match attestation::verify(&trust_domain, declaration, &found.files, now) {
                Err(Rejection::Unpublished) if self.trust_domains.is_empty() => {
                    output::note(&format!("note: {trust_domain}: nothing is published yet"));
                }
                Err(rejection) => {
                    refused = true;
                    output::note(&format!(
                        "refused: {trust_domain}: {rejection} (in {})",
                        found.place
                    ));
                }
                Ok(_) => publications.extend(Carried::of(&trust_domain, &found.files)),
            }
        }
        let count = output::plural(publications.len(), "publication");
        if refused && publications.is_empty() {
            output::note("nothing is left to export: no set is written");
            return Ok(Answer::No);
        }
        let bytes = BundleSet::of(publications).to_bytes();
        if self.output.as_os_str() == "-" {
            output::data(&String::from_utf8_lossy(&bytes))?;
        } else {
            fs::write(&self.output, bytes)
                .with_context(|| format!("write `{}`", self.output.display()))?;
        }
        output::note(&format!("{count} exported"));
        Ok(if refused { Answer::No } else { Answer::Yes })
    }
}
