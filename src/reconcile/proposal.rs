//! SPIRE → git by people's leave: a pass that proposes the own bundle on a branch of its own, and asks
//! for it to be merged into the reviewed one.
//!
//! **Invariants:** nothing is merged here; a proposal changes what [`publish`] would write into the
//! trust domain's directory, and nothing else; the same content is proposed once, under one serial,
//! with one open request; what people declined is not proposed again until they reopen it. Git's
//! references and the forge are the memory: whatever happens between two steps, the next pass goes on
//! from what it finds.

use serde_json::json;
use thiserror::Error;

use jiff::Timestamp;

use super::publish::{self, Composer, Publisher, Standing};
use crate::{
    cluster::types::PublishedStatus,
    forge::{self, Branches, Forge, Opened, Request, State, Words},
    git::{self, Proposed as Pushed, Published, Repository, Review, SigningKey},
    model::{
        attestation::{Attestation, Serial},
        bundle::{Bundle, Digest},
        declaration::TrustDomainSpec,
        diagnostic::with_causes,
        repository::{proposal_branch, publication},
    },
    spire::BundleSource,
};

/// How often a proposal is composed anew, or its request looked for, before the caller is told to come
/// again.
const MAX_ATTEMPTS: u32 = 5;

/// What a pass led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether a commit was needed.
    pub pushed: Published,
    /// What stands on the branch that peers go by.
    pub standing: Option<PublishedStatus>,
    /// What newer waits for people.
    pub proposed: Option<Proposed>,
}

impl From<publish::Outcome> for Outcome {
    /// Nothing waits where nobody is asked.
    fn from(outcome: publish::Outcome) -> Self {
        Self {
            pushed: outcome.published,
            standing: Some(outcome.standing),
            proposed: None,
        }
    }
}

/// A publication that waits for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its serial.
    pub serial: Serial,
    /// The request, for people.
    pub url: String,
    /// Whether people closed the request without merging it.
    pub declined: bool,
}

/// Why nothing is proposed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// As nothing would be published.
    #[error(transparent)]
    Publish(#[from] publish::Error),
    /// There is nothing to propose a change of.
    #[error("there is no branch `{0}` to propose a change of")]
    NoBase(String),
    /// The branch is pushed, but nobody is asked to merge it.
    #[error("the bundle is proposed on `{branch}`, but no request to merge it could be made")]
    Unrequested {
        /// The proposal's branch.
        branch: String,
        /// The cause.
        #[source]
        source: forge::Error,
    },
    /// The forge contradicts itself, or is slow to know what it did.
    #[error("the forge says that a request for `{0}` is open, and lists none")]
    Unlisted(String),
}

impl From<git::Error> for Error {
    fn from(error: git::Error) -> Self {
        Self::Publish(error.into())
    }
}

/// Proposes the own bundle if what stands at the target is not it. `last` is the highest serial that
/// this agent remembers to have been published.
pub async fn pass<R: Repository, F: Forge, S: BundleSource>(
    (repository, forge): (&R, &F),
    source: &S,
    publisher: &Publisher,
    key: &SigningKey,
    declaration: &TrustDomainSpec,
    last: Serial,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let bundle = publish::bundle(source, publisher, key, declaration, now).await?;
    let composer = Composer {
        publisher,
        key,
        declaration,
        bundle: &bundle,
        last,
        now,
    };
    let branch = proposal_branch(&publisher.trust_domain);
    let proposer = Proposer {
        repository,
        forge,
        content: content(&composer),
        composer,
        branches: Branches {
            head: branch.clone(),
            base: publisher.target.branch.clone(),
        },
        proposal: git::Proposal {
            base: publisher.target.branch.clone(),
            publication: publish::request(publisher, branch, key, now),
        },
    };
    for attempt in 1..=MAX_ATTEMPTS {
        if let Some(outcome) = proposer.attempt(attempt).await? {
            return Ok(outcome);
        }
    }
    let contended = git::Error::Contended {
        branch: proposer.branches.head,
        attempts: MAX_ATTEMPTS,
    };
    Err(contended.into())
}

/// What makes two proposals the same to people: everything that is said but serial and time. The
/// refresh hint does not count, as each source of the bundle tells another one.
fn content(composer: &Composer<'_>) -> String {
    let bundle = Bundle {
        refresh_hint: None,
        ..composer.bundle.clone()
    };
    let said = json!([
        composer.publisher.trust_domain,
        composer.declaration.epoch,
        composer.declaration.bundle_endpoint,
        composer.key.public_key(),
        bundle.digest(),
    ]);
    Digest::of(said.to_string().as_bytes()).to_string()
}

/// A pass under way.
struct Proposer<'a, R, F> {
    repository: &'a R,
    forge: &'a F,
    composer: Composer<'a>,
    content: String,
    branches: Branches,
    proposal: git::Proposal,
}

impl<R: Repository, F: Forge> Proposer<'_, R, F> {
    /// One try; `None` if the proposal's branch was changed meanwhile.
    async fn attempt(&self, attempt: u32) -> Result<Option<Outcome>, Error> {
        let review = self.repository.review(&self.proposal).await?;
        if review.base.revision.is_none() {
            return Err(Error::NoBase(self.branches.base.clone()));
        }
        let base = self.composer.look(&review.base.files)?;
        let mut outcome = Outcome {
            pushed: Published::Unchanged,
            standing: base.taken.as_ref().map(|taken| self.status(taken)),
            proposed: None,
        };
        if base.same.is_some() {
            if review.proposed.is_some() {
                self.withdraw(&review).await;
            }
            return Ok(Some(outcome));
        }
        // Without an answer the branch is pushed all the same: who looks at branches finds it there.
        let listed = self.forge.requests(&self.branches).await;
        let requests = listed.as_deref().unwrap_or_default();
        if let Some(declined) = self.declined(requests) {
            outcome.proposed = Some(declined);
            return Ok(Some(outcome));
        }
        let serial = match self.standing(&review, &base)? {
            Ok(serial) => serial,
            Err(previous) => {
                let previous = base.previous.iter().chain(&previous);
                let serial = self.composer.serial_after(previous)?;
                let draft = Some(self.composer.draft(serial)?);
                self.check_held()?;
                match self
                    .repository
                    .propose(&self.proposal, &review, draft)
                    .await?
                {
                    Pushed::Standing(revision) => {
                        outcome.pushed = Published::Committed {
                            revision,
                            attempts: attempt,
                        };
                    }
                    Pushed::Removed | Pushed::Overtaken => return Ok(None),
                }
                serial
            }
        };
        let requests = listed.map_err(|error| self.unrequested(error))?;
        let request = self.request(&self.words(serial), requests).await?;
        outcome.proposed = Some(Proposed {
            serial,
            url: request.url,
            declined: false,
        });
        Ok(Some(outcome))
    }

    /// The serial under which the proposal's branch says what is to be said; or what it said last.
    fn standing(
        &self,
        review: &Review,
        base: &Standing,
    ) -> Result<Result<Serial, Option<Attestation>>, Error> {
        let Some(tip) = &review.proposed else {
            return Ok(Err(None));
        };
        let proposed = self.composer.look(&tip.files)?;
        let epoch = self.composer.declaration.epoch;
        let after = |serial: &Serial| {
            let previous = base.previous.as_ref();
            *serial > self.composer.last
                && previous.is_none_or(|it| *serial > it.serial || it.epoch != epoch)
        };
        let same = proposed.same.map(|(serial, _)| serial);
        let same = same.filter(|serial| review.mergeable && after(serial));
        Ok(same.ok_or(proposed.previous))
    }

    /// The request by which people declined this very content, unless they reopened it.
    fn declined(&self, requests: &[Request]) -> Option<Proposed> {
        if requests.iter().any(|it| it.state == State::Open) {
            return None;
        }
        let mut closed = requests.iter().filter(|it| it.state == State::Closed);
        closed.find_map(|request| {
            let mark = Mark::of(&request.words)?;
            (mark.content == self.content).then(|| Proposed {
                serial: mark.serial,
                url: request.url.clone(),
                declined: true,
            })
        })
    }

    /// The one open request, which says what is proposed; it is opened if there is none.
    async fn request(&self, words: &Words, requests: Vec<Request>) -> Result<Request, Error> {
        let failed = |error| self.unrequested(error);
        let mut requests = requests;
        let mut opened = None;
        for _ in 0..MAX_ATTEMPTS {
            requests.retain(|it| it.state == State::Open);
            requests.sort_by_key(|it| it.number);
            if let Some((first, doubles)) = requests.split_first() {
                // Two agents asked in the same moment, of a forge that took both.
                for double in doubles {
                    self.check_held()?;
                    self.forge.close(double.number).await.map_err(failed)?;
                }
                if Mark::of(&first.words) != Mark::of(words) {
                    self.check_held()?;
                    let rewritten = self.forge.rewrite(first.number, words).await;
                    rewritten.map_err(failed)?;
                }
                return Ok(first.clone());
            }
            if let Some(opened) = opened {
                return Ok(opened);
            }
            self.check_held()?;
            let answer = self.forge.open(&self.branches, words).await;
            if let Opened::New(request) = answer.map_err(failed)? {
                opened = Some(request);
            }
            requests = self.forge.requests(&self.branches).await.map_err(failed)?;
        }
        Err(Error::Unlisted(self.branches.head.clone()))
    }

    /// Leaves nothing behind of a proposal that is settled. What fails is for the next pass.
    async fn withdraw(&self, review: &Review) {
        let done = async {
            let failed = |error| self.unrequested(error);
            let requests = self.forge.requests(&self.branches).await.map_err(failed)?;
            for request in requests.iter().filter(|it| it.state == State::Open) {
                self.check_held()?;
                self.forge.close(request.number).await.map_err(failed)?;
            }
            self.check_held()?;
            let removed = self.repository.propose(&self.proposal, review, None);
            Ok::<_, Error>(removed.await.map(drop)?)
        };
        if let Err(error) = done.await {
            let error = with_causes(&error);
            tracing::warn!(error, "a proposal that is settled is not cleared away");
        }
    }

    /// The last thing before a write.
    fn check_held(&self) -> Result<(), Error> {
        let fence = &self.composer.publisher.fence;
        Ok(fence.check().map_err(publish::Error::from)?)
    }

    fn unrequested(&self, source: forge::Error) -> Error {
        Error::Unrequested {
            branch: self.branches.head.clone(),
            source,
        }
    }

    fn status(&self, taken: &Attestation) -> PublishedStatus {
        PublishedStatus {
            serial: taken.serial.0,
            epoch: taken.epoch,
            digest: taken.sha256.to_string(),
            branch: self.branches.base.clone(),
        }
    }

    /// What the request says.
    fn words(&self, serial: Serial) -> Words {
        let Composer {
            publisher,
            declaration,
            bundle,
            ..
        } = &self.composer;
        let trust_domain = &publisher.trust_domain;
        let files = publication::FILES.join("`, `");
        let body = format!(
            "The agent of the cluster `{}` asks to publish the bundle that the SPIRE of `{trust_domain}` \
             has now. The one commit of this branch changes `{files}` in `{}` and nothing else.\n\n\
             Peers go by the bundle once this is merged. Until then the branch follows SPIRE: a rotation \
             replaces its commit. Close this to decline it; the same content is then not proposed again, \
             unless this is reopened.\n\n\
             ```\nTrust-Domain: {trust_domain}\nCluster: {}\nEpoch: {}\nSerial: {serial}\n\
             X.509-Authorities: {}\nJWT-Authorities: {}\nDigest: sha256:{}\nContent: {}\n```\n",
            publisher.cluster,
            publisher.target.directory,
            publisher.cluster,
            declaration.epoch,
            bundle.x509_authorities.len(),
            bundle.jwt_authorities.len(),
            bundle.digest(),
            self.content,
        );
        Words {
            title: format!("Publish the bundle of {trust_domain}: serial {serial}"),
            body,
        }
    }
}

/// What a request says for the agent to read again.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    serial: Serial,
    content: String,
}

impl Mark {
    fn of(words: &Words) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = words.body.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Self {
            serial: Serial(field("Serial")?.parse().ok()?),
            content: field("Content")?.to_owned(),
        })
    }
}
