//! `trustweave bundle show`.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{Answer, check::now, output},
    source,
};
use crate::model::{
    attestation::{self, Publication, Rejection},
    bundle::{JwtAuthority, X509Authority},
    declaration::{Signer, TrustDomainSpec},
    trust_domain::TrustDomain,
};

/// Show and verify what a trust domain publishes
///
/// Reads the trust domain's bundle in a local git repository: on its own branch
/// `trustweave/<TRUST_DOMAIN>` (a local one, or that of `origin`), or else in
/// `trust-domains/<TRUST_DOMAIN>/` of the declarations' commit. Verifies, as the agents do, that one
/// of the declared signers signed it, and that it is about this trust domain, epoch and endpoint.
/// Nothing is fetched: run `git fetch` before.
///
/// Exit codes: 0 verified, 1 not verified, 2 the repository or the declaration can't be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave bundle show a.test
  trustweave bundle show a.test --declarations origin/main
  trustweave bundle show a.test -o spiffe |
    spire-server bundle set -format spiffe -id spiffe://a.test")]
pub(super) struct Arguments {
    /// The trust domain, without `spiffe://`
    trust_domain: TrustDomain,

    #[command(flatten)]
    place: source::Place,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// In which form a bundle is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// Only the bundle, a SPIFFE bundle document, and only if it is verified.
    Spiffe,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let source = self.place.open()?;
        let declaration = source.declaration(&self.trust_domain)?;
        let found = source.find(&self.trust_domain)?;
        let now = now();
        let verdict = attestation::verify(&self.trust_domain, declaration, &found.files, now);
        let signer = verdict
            .as_ref()
            .ok()
            .and_then(|_| signer(&self.trust_domain, declaration, &found.files, now));
        let shown = Shown {
            trust_domain: &self.trust_domain,
            place: &found.place,
            declarations: source.words(),
            declaration,
            signer,
            verdict: &verdict,
            now,
        };
        match (self.output, &verdict) {
            (Format::Text, _) => output::data(&shown.text())?,
            (Format::Json, _) => output::json(&shown.json())?,
            (Format::Spiffe, Ok(publication)) => {
                output::data(&String::from_utf8_lossy(&publication.bundle.canonical()))?;
            }
            (Format::Spiffe, Err(rejection)) => output::note(&format!("not verified: {rejection}")),
        }
        Ok(if verdict.is_ok() {
            Answer::Yes
        } else {
            Answer::No
        })
    }
}

/// The fingerprint of the declared key that signed it: the one that suffices alone.
fn signer(
    trust_domain: &TrustDomain,
    declaration: &TrustDomainSpec,
    files: &BTreeMap<String, Vec<u8>>,
    now: Timestamp,
) -> Option<String> {
    let signed = declaration.signers.iter().find(|signer| {
        let alone = TrustDomainSpec {
            signers: vec![(*signer).clone()],
            ..declaration.clone()
        };
        attestation::verify(trust_domain, &alone, files, now).is_ok()
    });
    signed.map(Signer::fingerprint)
}

/// An answer that is about to be written.
struct Shown<'a> {
    trust_domain: &'a TrustDomain,
    place: &'a str,
    declarations: String,
    declaration: &'a TrustDomainSpec,
    signer: Option<String>,
    verdict: &'a Result<Publication, Rejection>,
    now: Timestamp,
}

impl Shown<'_> {
    fn text(&self) -> String {
        let mut rows = vec![
            ("Trust domain", self.trust_domain.to_string()),
            ("Published in", self.place.to_owned()),
            ("Declared in", self.declarations.clone()),
        ];
        let mut tables = String::new();
        match self.verdict {
            Err(rejection) => {
                rows.push(("Verdict", format!("not verified: {rejection}")));
                let declared = self.declaration.signers.iter();
                rows.extend(declared.map(|signer| ("Declared signer", signer.fingerprint())));
            }
            Ok(publication) => {
                let statement = &publication.attestation;
                let issued = output::age(statement.issued_at, self.now);
                let sequence = statement.spiffe_sequence;
                rows.extend([
                    ("Verdict", "verified".to_owned()),
                    ("Epoch", statement.epoch.to_string()),
                    ("Serial", statement.serial.to_string()),
                    ("Digest", statement.sha256.to_string()),
                    ("Signer", self.signer.clone().unwrap_or_default()),
                    (
                        "Issued at",
                        format!("{} ({issued} ago)", statement.issued_at),
                    ),
                    (
                        "spiffe_sequence",
                        sequence.map_or("none".to_owned(), |it| it.to_string()),
                    ),
                    ("Endpoint", statement.endpoint.to_string()),
                    ("Cluster UID", statement.cluster_uid.clone()),
                ]);
                let x509 = |authority: &X509Authority| {
                    let ends = authority.not_after;
                    let when = output::until(ends, self.now);
                    vec![authority.key.short().to_owned(), format!("{ends} ({when})")]
                };
                let authorities = publication.bundle.x509_authorities.iter();
                let header = ["X.509 AUTHORITY", "EXPIRES"];
                let _ = write!(
                    tables,
                    "\n{}",
                    output::table(&header, authorities.map(x509).collect())
                );
                let jwt = |authority: &JwtAuthority| vec![authority.key_id.clone()];
                let authorities: Vec<_> =
                    publication.bundle.jwt_authorities.iter().map(jwt).collect();
                if !authorities.is_empty() {
                    let _ = write!(
                        tables,
                        "\n{}",
                        output::table(&["JWT AUTHORITY"], authorities)
                    );
                }
            }
        }
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{:<17}{value}", format!("{name}:"));
        }
        text + &tables
    }

    fn json(&self) -> Value {
        let mut answer = json!({
            "trustDomain": self.trust_domain,
            "publishedIn": self.place,
            "declaredIn": self.declarations,
            "verified": self.verdict.is_ok(),
        });
        match self.verdict {
            Err(rejection) => {
                answer["reason"] = rejection.reason().into();
                answer["message"] = rejection.to_string().into();
            }
            Ok(publication) => {
                let statement = &publication.attestation;
                answer["epoch"] = statement.epoch.into();
                answer["serial"] = statement.serial.0.into();
                answer["digest"] = statement.sha256.as_str().into();
                answer["signer"] = self.signer.clone().into();
                answer["issuedAt"] = statement.issued_at.to_string().into();
                answer["spiffe_sequence"] = statement.spiffe_sequence.into();
                answer["endpoint"] = json!(statement.endpoint);
                answer["clusterUID"] = statement.cluster_uid.clone().into();
                let x509 = |authority: &X509Authority| {
                    json!({
                        "keySHA256": authority.key,
                        "notAfter": authority.not_after.to_string(),
                    })
                };
                let bundle = &publication.bundle;
                answer["x509Authorities"] = bundle.x509_authorities.iter().map(x509).collect();
                let jwt = |authority: &JwtAuthority| json!({"kid": authority.key_id});
                answer["jwtAuthorities"] = bundle.jwt_authorities.iter().map(jwt).collect();
            }
        }
        answer
    }
}
