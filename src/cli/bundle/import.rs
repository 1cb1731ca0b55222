//! `trustweave bundle import`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{
        Answer,
        check::now,
        output::{self, Format},
        repository::Found,
    },
    source::{Place, Source},
};
use crate::{
    git::{self, Author, Draft},
    model::{
        attestation::{self, Attestation, Publication},
        bundle_set::{BundleSet, Carried, MAX_SET_BYTES},
        repository::{Revision, publication, publication_branch},
        trust_domain::TrustDomain,
    },
};

/// Take in publications that `trustweave bundle export` wrote
///
/// Verifies each publication of the set against the declarations of this repository, as the agents
/// do, and commits it on the local branch `trustweave/<TRUST_DOMAIN>`, which the agents of clusters
/// without a link follow. The repository may be a bare one.
///
/// Refused is what does not verify, what is older than what stands here already, and what has the
/// same epoch and serial as that but other content. The commit is not signed: the proof is the
/// signature over the attestation, which every agent checks again.
///
/// Exit codes: 0 everything is in, or was before; 1 something was refused (the rest is in); 2 the set
/// or the repository can't be read.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trustweave bundle import bundles.json
  trustweave bundle import bundles.json --repo /srv/git/federation.git --declarations main
  cat bundles.json | trustweave bundle import - -o json")]
pub(super) struct Arguments {
    /// The set; `-` is standard input
    file: PathBuf,

    #[command(flatten)]
    place: Place,

    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What became of a publication.
enum Outcome {
    Imported(Revision, Box<Attestation>),
    Unchanged(Box<Attestation>),
    Refused(Refusal),
}

/// Why a publication is not taken in.
struct Refusal {
    /// Short and stable.
    reason: &'static str,
    message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<Answer> {
        let set = BundleSet::parse(&self.read()?)?;
        let source = self.place.open()?;
        let now = now();
        let mut outcomes = BTreeMap::new();
        for carried in &set.publications {
            let outcome = import(&source, carried, now)?;
            outcomes.insert(&carried.trust_domain, outcome);
        }
        match self.output {
            Format::Text => output::data(&text(&outcomes))?,
            Format::Json => output::json(&document(&outcomes))?,
        }
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_));
        Ok(if outcomes.values().any(refused) {
            Answer::No
        } else {
            Answer::Yes
        })
    }

    /// The set's bytes, and one more if there are too many.
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        let input: Box<dyn Read> = if self.file.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            let file = fs::File::open(&self.file);
            Box::new(file.with_context(|| format!("open `{}`", self.file.display()))?)
        };
        let mut bytes = Vec::new();
        input
            .take(MAX_SET_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read `{}`", self.file.display()))?;
        Ok(bytes)
    }
}

fn import(source: &Source, carried: &Carried, now: Timestamp) -> anyhow::Result<Outcome> {
    let trust_domain = &carried.trust_domain;
    let standing = source.find_all(trust_domain)?;
    let publication = match verified(source, carried, &standing, now) {
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
        Ok(publication) => publication,
    };
    let statement = publication.attestation;
    let files = carried.files();
    let stands = |found: &Found| {
        let verdict = source
            .declarations
            .trust_domains
            .get(trust_domain)
            .map(|declaration| attestation::verify(trust_domain, declaration, &found.files, now));
        matches!(verdict, Some(Ok(standing)) if standing.attestation.sha256 == statement.sha256
            && standing.attestation.serial == statement.serial)
    };
    if standing.iter().any(stands) {
        return Ok(Outcome::Unchanged(Box::new(statement)));
    }
    let author = Author {
        name: "trustweave import".to_owned(),
        email: "import@trustweave.invalid".to_owned(),
        seconds: now.as_second(),
    };
    let draft = Draft {
        files,
        message: format!(
            "Import the bundle of {trust_domain}: serial {serial}\n\n\
             Trust-Domain: {trust_domain}\nEpoch: {}\nSerial: {serial}\nDigest: sha256:{}\n",
            statement.epoch,
            statement.sha256,
            serial = statement.serial,
        ),
    };
    let parent = standing.iter().find_map(|found| found.revision.as_ref());
    let branch = publication_branch(trust_domain);
    Ok(
        match source.repository.commit(&branch, parent, &draft, &author) {
            Ok(revision) => Outcome::Imported(revision, Box::new(statement)),
            // One branch that can't be written must not hide what became of the others.
            Err(error) => {
                let reason = match error {
                    git::Error::CheckedOut(_) => "CheckedOut",
                    _ => "NotWritten",
                };
                let message = format!("{:#}", anyhow::Error::from(error));
                Outcome::Refused(Refusal::new(reason, message))
            }
        },
    )
}

/// The publication, if it verifies and nothing that stands here speaks against it.
fn verified(
    source: &Source,
    carried: &Carried,
    standing: &[Found],
    now: Timestamp,
) -> Result<Publication, Refusal> {
    let trust_domain = &carried.trust_domain;
    let Some(declaration) = source.declarations.trust_domains.get(trust_domain) else {
        let message = format!("{} has no usable declaration of it", source.words());
        return Err(Refusal::new("Undeclared", message));
    };
    if let Some(file) = carried.oversized() {
        return Err(Refusal::new("TooLarge", format!("`{file}` is too large")));
    }
    let publication = attestation::verify(trust_domain, declaration, &carried.files(), now)
        .map_err(|rejection| Refusal::new(rejection.reason(), rejection.to_string()))?;
    for found in standing {
        // Also what does not verify counts: a signer that is gone since does not make it older.
        let Some(former) = statement(trust_domain, found) else {
            continue;
        };
        let new = &publication.attestation;
        let (old_rank, new_rank) = ((former.epoch, former.serial), (new.epoch, new.serial));
        let (reason, message) = if new_rank < old_rank {
            let message = format!(
                "serial {} of epoch {} is older than serial {} of epoch {}",
                new.serial, new.epoch, former.serial, former.epoch
            );
            ("Older", message)
        } else if new_rank == old_rank && new.sha256 != former.sha256 {
            let message = format!(
                "equivocation: serial {} has the digest {}, but {}",
                new.serial,
                new.sha256.short(),
                former.sha256.short()
            );
            ("Equivocation", message)
        } else {
            continue;
        };
        let mut message = format!("{message} in {}", found.place);
        let verdict = attestation::verify(trust_domain, declaration, &found.files, now);
        if let Err(rejection) = verdict {
            let _ = write!(
                message,
                "; that one does not verify ({rejection}): if it is worthless, remove the branch, and \
                 import again"
            );
        }
        return Err(Refusal::new(reason, message));
    }
    Ok(publication)
}

/// What the standing attestation says of itself, if it is about the trust domain.
fn statement(trust_domain: &TrustDomain, found: &Found) -> Option<Attestation> {
    let bytes = found.files.get(publication::ATTESTATION)?;
    let statement: Attestation = serde_json::from_slice(bytes).ok()?;
    (statement.trust_domain == *trust_domain).then_some(statement)
}

fn text(outcomes: &BTreeMap<&TrustDomain, Outcome>) -> String {
    let rows = outcomes.iter().map(|(trust_domain, outcome)| {
        let (result, serial, detail) = match outcome {
            Outcome::Imported(revision, it) => (
                "imported",
                it.serial.to_string(),
                format!("commit {}", revision.short()),
            ),
            Outcome::Unchanged(it) => ("unchanged", it.serial.to_string(), String::new()),
            Outcome::Refused(refusal) => {
                let detail = format!("{}: {}", refusal.reason, refusal.message);
                ("refused", "-".to_owned(), detail)
            }
        };
        vec![trust_domain.to_string(), result.to_owned(), serial, detail]
    });
    output::table(
        &["TRUST DOMAIN", "RESULT", "SERIAL", "DETAIL"],
        rows.collect(),
    )
}

fn document(outcomes: &BTreeMap<&TrustDomain, Outcome>) -> Value {
    let one = |(trust_domain, outcome): (&&TrustDomain, &Outcome)| match outcome {
        Outcome::Imported(revision, it) => json!({
            "trustDomain": trust_domain, "result": "imported",
            "epoch": it.epoch, "serial": it.serial, "commit": revision,
        }),
        Outcome::Unchanged(it) => json!({
            "trustDomain": trust_domain, "result": "unchanged",
            "epoch": it.epoch, "serial": it.serial,
        }),
        Outcome::Refused(refusal) => json!({
            "trustDomain": trust_domain, "result": "refused",
            "reason": refusal.reason, "message": refusal.message,
        }),
    };
    outcomes.iter().map(one).collect()
}
