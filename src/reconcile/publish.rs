//! SPIRE → git: a pass that publishes the own bundle, signed, if it is not what stands there already.
//!
//! **Invariants:** the agent writes its own branch (or directory) only, and only as the declared
//! publisher that holds the Lease; same content, same bytes: nothing is committed twice; a bundle that peers would refuse
//! is not published.

use std::collections::BTreeMap;

use jiff::Timestamp;
use thiserror::Error;

use crate::{
    cluster::{
        lease::{Fence, NotHeld},
        types::PublishedStatus,
    },
    git::{self, Author, Draft, Publish, Published, Repository, SigningKey, Tip},
    model::{
        attestation::{self, Attestation, Rejection, Serial},
        bundle::{Bundle, Digest, InvalidBundle},
        declaration::{API_VERSION, Signer, TrustDomainSpec},
        repository::{RepoPath, publication, publication_branch, trust_domain_directory},
        trust_domain::{ClusterName, TrustDomain},
    },
    spire::{self, BundleSource},
};

/// Who publishes, and where.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// The agent's cluster.
    pub cluster: ClusterName,
    /// UID of the namespace `kube-system`.
    pub cluster_uid: String,
    /// The agent's trust domain.
    pub trust_domain: TrustDomain,
    /// The branch and the directory in it.
    pub target: Target,
    /// The domain of the commits' author.
    pub email_domain: &'static str,
    /// What lets through while this agent, and no other of the cluster, writes.
    pub fence: Fence,
}

/// What a pass led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether a commit was needed.
    pub published: Published,
    /// What stands in git now.
    pub standing: PublishedStatus,
}

/// Where a publication stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The branch.
    pub branch: String,
    /// The directory on the branch.
    pub directory: RepoPath,
}

impl Target {
    /// The root of the trust domain's own branch.
    pub fn own_branch(trust_domain: &TrustDomain) -> Self {
        Self {
            branch: publication_branch(trust_domain),
            directory: RepoPath::ROOT,
        }
    }

    /// The trust domain's directory on the reviewed branch.
    pub fn directory_on(branch: &str, trust_domain: &TrustDomain) -> Self {
        Self {
            branch: branch.to_owned(),
            directory: trust_domain_directory(trust_domain),
        }
    }
}

/// Why nothing is published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The declaration does not know this cluster, or not as the publisher.
    #[error("`{cluster}` is not the declared publisher of `{trust_domain}`")]
    NotPublisher {
        /// The agent's cluster.
        cluster: ClusterName,
        /// The agent's trust domain.
        trust_domain: TrustDomain,
    },
    /// Peers would refuse what this key signs.
    #[error("the agent's key {0} is not among the declared signers of its trust domain")]
    NotASigner(String),
    /// Another agent may hold the Lease by now.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// The own bundle can't be read.
    #[error(transparent)]
    Source(#[from] spire::Error),
    /// SPIRE's bundle is not one that peers would take.
    #[error("SPIRE's own bundle: {0}")]
    Bundle(#[from] InvalidBundle),
    /// The branch was last written from another cluster under the same name.
    #[error(
        "the publication was last written by cluster UID {0}: raise `epoch` in the declaration if this cluster replaces it"
    )]
    OtherCluster(String),
    /// Somebody with a declared key jumped to the end.
    #[error(
        "the last serial of epoch {0} is used up: replace the signer if it was not this agent, and raise `epoch` in the declaration"
    )]
    SerialsUsedUp(u64),
    /// The key can't sign, or git can't be written.
    #[error(transparent)]
    Git(#[from] git::Error),
}

/// Publishes the own bundle if what stands at the target is not it. `last` is the highest serial
/// that this agent remembers to have published: the branch may have been lost since.
pub async fn pass<R: Repository, S: BundleSource>(
    repository: &R,
    source: &S,
    publisher: &Publisher,
    key: &SigningKey,
    declaration: &TrustDomainSpec,
    last: Serial,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let bundle = bundle(source, publisher, key, declaration, now).await?;
    let composer = Composer {
        publisher,
        key,
        declaration,
        bundle: &bundle,
        last,
        now,
    };
    let request = request(publisher, publisher.target.branch.clone(), key, now);
    let mut last_draft = None;
    let pushed = repository
        .publish(request, |tip| {
            match last_draft.insert(composer.compose(tip)) {
                Ok(Composed::New(_, draft)) => draft.take(),
                Ok(Composed::Standing(..)) | Err(_) => None,
            }
        })
        .await?;
    let outcome = last_draft.transpose()?.ok_or_else(
        // The port composes at least once before it succeeds.
        || git::Error::Contended {
            branch: publisher.target.branch.clone(),
            attempts: 0,
        },
    )?;
    let (serial, digest) = match outcome {
        Composed::New(serial, _) => (serial, bundle.digest()),
        Composed::Standing(serial, digest) => (serial, digest),
    };
    Ok(Outcome {
        published: pushed,
        standing: PublishedStatus {
            serial: serial.0,
            epoch: declaration.epoch,
            digest: digest.to_string(),
            branch: publisher.target.branch.clone(),
        },
    })
}

/// A commit to a branch, in the directory of the target.
pub(super) fn request(
    publisher: &Publisher,
    branch: String,
    key: &SigningKey,
    now: Timestamp,
) -> Publish {
    Publish {
        branch,
        directory: publisher.target.directory.clone(),
        author: Author {
            name: format!("trustweave ({})", publisher.cluster),
            email: format!("{}@{}", publisher.cluster, publisher.email_domain),
            seconds: now.as_second(),
        },
        key: key.clone(),
    }
}

/// The own bundle, if this agent is who publishes it, and if peers would take it.
pub(super) async fn bundle<S: BundleSource>(
    source: &S,
    publisher: &Publisher,
    key: &SigningKey,
    declaration: &TrustDomainSpec,
    now: Timestamp,
) -> Result<Bundle, Error> {
    if declaration.publisher() != Some(&publisher.cluster) {
        return Err(Error::NotPublisher {
            cluster: publisher.cluster.clone(),
            trust_domain: publisher.trust_domain.clone(),
        });
    }
    let declared = |signer: &Signer| key.is(signer.public_key());
    if !declaration.signers.iter().any(declared) {
        return Err(Error::NotASigner(key.public_key()));
    }
    let bundle = source.current().await?;
    bundle.check(&publisher.trust_domain, now)?;
    Ok(bundle)
}

/// What was made of a tip.
enum Composed {
    /// It says the same already, under this serial, in bytes of this digest.
    Standing(Serial, Digest),
    /// It needs these files, under this serial.
    New(Serial, Option<Draft>),
}

/// What stands somewhere, as this agent sees it.
pub(super) struct Standing {
    /// The last statement of a declared signer, whatever became of the bundle.
    pub(super) previous: Option<Attestation>,
    /// The publication that peers take.
    pub(super) taken: Option<Attestation>,
    /// Its serial and its digest, if it says what is to be said, by this agent's key.
    pub(super) same: Option<(Serial, Digest)>,
}

/// Composes what should stand at the target, on top of what stands there.
pub(super) struct Composer<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) key: &'a SigningKey,
    pub(super) declaration: &'a TrustDomainSpec,
    pub(super) bundle: &'a Bundle,
    pub(super) last: Serial,
    pub(super) now: Timestamp,
}

impl Composer<'_> {
    /// The files to write, unless the tip already says the same.
    fn compose(&self, tip: &Tip) -> Result<Composed, Error> {
        // The last thing before a push.
        self.publisher.fence.check()?;
        let standing = self.look(&tip.files)?;
        if let Some((serial, digest)) = standing.same {
            return Ok(Composed::Standing(serial, digest));
        }
        let serial = self.serial_after(standing.previous.as_ref())?;
        Ok(Composed::New(serial, Some(self.draft(serial)?)))
    }

    /// What a publication's files say. Those of a cluster that this one does not replace are an error.
    pub(super) fn look(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<Standing, Error> {
        let trust_domain = &self.publisher.trust_domain;
        let verified = attestation::verify(trust_domain, self.declaration, files, self.now);
        // What no declared signer signed may be anybody's who can push, and decides nothing.
        let previous = attestation::stated(trust_domain, self.declaration, files);
        if let Some(previous) = &previous
            && previous.cluster_uid != self.publisher.cluster_uid
            && previous.epoch >= self.declaration.epoch
        {
            return Err(Error::OtherCluster(previous.cluster_uid.clone()));
        }
        let (taken, says_the_same) = match verified {
            Ok(standing) => {
                let says_the_same = same(&standing.bundle, self.bundle);
                (Some(standing.attestation), says_the_same)
            }
            Err(Rejection::Unpublished) => (None, false),
            // Nobody but this agent writes here: what does not verify is replaced.
            Err(rejection) => {
                tracing::info!(%rejection, "the standing publication is replaced");
                (None, false)
            }
        };
        let signer = attestation::signer(files);
        let is_ours = signer.is_some_and(|signer| self.key.is(&signer));
        if says_the_same && !is_ours {
            // While both keys are declared: once the other's is no longer, peers would refuse what
            // it signed.
            tracing::info!("the standing publication is signed again, with the agent's own key");
        }
        let of = |it: &Attestation| (it.serial, it.sha256.clone());
        Ok(Standing {
            same: taken.as_ref().filter(|_| says_the_same && is_ours).map(of),
            previous,
            taken,
        })
    }

    /// The serial of a publication after others. One that was used up ends with its epoch.
    pub(super) fn serial_after<'p>(
        &self,
        previous: impl IntoIterator<Item = &'p Attestation>,
    ) -> Result<Serial, Error> {
        let epoch = self.declaration.epoch;
        let standing = previous
            .into_iter()
            .filter(|it| it.epoch == epoch || it.serial < Serial::LAST)
            .map(|it| it.serial);
        let newest = standing.fold(self.last, Serial::max);
        newest.next().ok_or(Error::SerialsUsedUp(epoch))
    }

    pub(super) fn draft(&self, serial: Serial) -> Result<Draft, Error> {
        let bundle = self.bundle.canonical();
        let attestation = Attestation {
            api_version: API_VERSION.to_owned(),
            kind: attestation::KIND.to_owned(),
            trust_domain: self.publisher.trust_domain.clone(),
            epoch: self.declaration.epoch,
            serial,
            sha256: self.bundle.digest(),
            spiffe_sequence: self.bundle.sequence,
            endpoint: self.declaration.bundle_endpoint.clone(),
            cluster_uid: self.publisher.cluster_uid.clone(),
            issued_at: self.now,
        };
        let statement = attestation.to_bytes();
        let signature = self.key.sign(attestation::NAMESPACE, &statement)?;
        let message = format!(
            "Publish the bundle of {}: serial {serial}\n\n\
             X.509 authorities: {}\nJWT authorities: {}\n\n\
             Trust-Domain: {}\nCluster: {}\nEpoch: {}\nSerial: {serial}\nDigest: sha256:{}\n",
            self.publisher.trust_domain,
            self.bundle.x509_authorities.len(),
            self.bundle.jwt_authorities.len(),
            self.publisher.trust_domain,
            self.publisher.cluster,
            self.declaration.epoch,
            attestation.sha256,
        );
        let files = BTreeMap::from([
            (publication::BUNDLE.to_owned(), bundle),
            (publication::ATTESTATION.to_owned(), statement),
            (publication::SIGNATURE.to_owned(), signature.into_bytes()),
        ]);
        Ok(Draft { files, message })
    }
}

/// Whether nothing new is said. The refresh hint does not count: each source tells another one of the
/// same bundle, and whoever delivers it sets the hint that is declared.
fn same(standing: &Bundle, found: &Bundle) -> bool {
    standing.same_keys(found) && standing.sequence == found.sequence
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use ssh_key::{Algorithm, LineEnding, PrivateKey, rand_core::OsRng};

    use super::*;
    use crate::model::bundle::sample;

    fn key() -> SigningKey {
        let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
        SigningKey::from_openssh(&key.to_openssh(LineEnding::LF).unwrap()).unwrap()
    }

    fn declaration(signers: &[&SigningKey], epoch: u64) -> TrustDomainSpec {
        let signers: Vec<_> = signers.iter().map(|key| key.public_key()).collect();
        serde_json::from_value(json!({
            "clusters": [{"name": "a"}], "signers": signers, "epoch": epoch,
            "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
            "bundleEndpoint": "none",
        }))
        .unwrap()
    }

    type Files = BTreeMap<String, Vec<u8>>;

    /// What a publisher in the cluster with this UID makes of a tip: the serial, and the files if
    /// there is something to write.
    fn compose(
        tip: &Files,
        (key, uid): (&SigningKey, &str),
        (epoch, last): (u64, u64),
        bundle: &Bundle,
    ) -> Result<(u64, Option<Files>), String> {
        compose_declared(tip, (key, uid), &declaration(&[key], epoch), last, bundle)
    }

    /// The same under a declaration of one's own.
    fn compose_declared(
        tip: &Files,
        (key, uid): (&SigningKey, &str),
        declaration: &TrustDomainSpec,
        last: u64,
        bundle: &Bundle,
    ) -> Result<(u64, Option<Files>), String> {
        compose_behind(Fence::open(), tip, (key, uid), declaration, last, bundle)
    }

    /// The same behind a fence.
    fn compose_behind(
        fence: Fence,
        tip: &Files,
        (key, uid): (&SigningKey, &str),
        declaration: &TrustDomainSpec,
        last: u64,
        bundle: &Bundle,
    ) -> Result<(u64, Option<Files>), String> {
        let trust_domain = TrustDomain::parse("a.test").unwrap();
        let publisher = Publisher {
            cluster: ClusterName::parse("a").unwrap(),
            cluster_uid: uid.to_owned(),
            target: Target::own_branch(&trust_domain),
            trust_domain,
            email_domain: "example.com",
            fence,
        };
        let composer = Composer {
            publisher: &publisher,
            key,
            declaration,
            bundle,
            last: Serial(last),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let tip = Tip {
            revision: None,
            files: tip.clone(),
        };
        match composer.compose(&tip) {
            Ok(Composed::Standing(serial, _)) => Ok((serial.0, None)),
            Ok(Composed::New(serial, draft)) => Ok((serial.0, draft.map(|draft| draft.files))),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn only_what_is_new_is_written_and_serials_never_go_back() {
        let (key, bundle) = (key(), sample("a.test"));
        let agent = (&key, "uid");
        let (serial, files) = compose(&BTreeMap::new(), agent, (0, 0), &bundle).unwrap();
        assert_eq!(serial, 1);
        let files = files.unwrap();
        assert_eq!(compose(&files, agent, (0, 1), &bundle), Ok((1, None)));
        let (serial, newer) = compose(&files, agent, (0, 1), &sample("a.test")).unwrap();
        assert_eq!(serial, 2);
        // A branch that was rewound or lost: the cluster remembers.
        assert_eq!(
            compose(&files, agent, (0, 2), &sample("a.test")).unwrap().0,
            3
        );
        assert_eq!(
            compose(&BTreeMap::new(), agent, (0, 2), &bundle).unwrap().0,
            3
        );
        // What does not verify is replaced under a higher serial.
        let mut forged = newer.unwrap();
        forged.insert(publication::BUNDLE.to_owned(), b"{}".to_vec());
        assert_eq!(compose(&forged, agent, (0, 0), &bundle).unwrap().0, 3);
    }

    #[test]
    fn a_source_that_tells_another_hint_changes_nothing() {
        let (key, bundle) = (key(), sample("a.test"));
        let agent = (&key, "uid");
        let standing = compose(&Files::new(), agent, (0, 0), &bundle).unwrap().1;
        let standing = standing.unwrap();
        let hinted = bundle.clone().with_refresh_hint(Some(300));
        assert_ne!(hinted.canonical(), bundle.canonical());
        assert_eq!(compose(&standing, agent, (0, 1), &hinted), Ok((1, None)));
        let newer = Bundle {
            sequence: Some(2),
            ..bundle
        };
        assert_eq!(compose(&standing, agent, (0, 1), &newer).unwrap().0, 2);
    }

    #[test]
    fn what_another_declared_key_signed_is_signed_again_once() {
        let (old, new, bundle) = (key(), key(), sample("a.test"));
        let with = |signer, signers: &[&SigningKey], tip: &Files, last| {
            let declaration = declaration(signers, 0);
            compose_declared(tip, (signer, "uid"), &declaration, last, &bundle).unwrap()
        };
        let standing = with(&old, &[&old], &Files::new(), 0).1.unwrap();
        assert_eq!(with(&old, &[&old, &new], &standing, 1), (1, None));
        let (serial, again) = with(&new, &[&old, &new], &standing, 1);
        let again = again.unwrap();
        assert_eq!(serial, 2);
        assert_eq!(again[publication::BUNDLE], standing[publication::BUNDLE]);
        // From here on the old key is not needed: neither with it nor without it anything is new.
        assert_eq!(with(&new, &[&old, &new], &again, 2), (2, None));
        assert_eq!(with(&new, &[&new], &again, 2), (2, None));
    }

    /// The files of a statement that differs from the standing one, signed with a key.
    fn stating(files: &Files, key: &SigningKey, change: impl FnOnce(&mut Attestation)) -> Files {
        let mut statement: Attestation =
            serde_json::from_slice(&files[publication::ATTESTATION]).unwrap();
        change(&mut statement);
        let statement = statement.to_bytes();
        let signature = key.sign(attestation::NAMESPACE, &statement).unwrap();
        let mut files = files.clone();
        files.insert(publication::ATTESTATION.to_owned(), statement);
        files.insert(publication::SIGNATURE.to_owned(), signature.into_bytes());
        files
    }

    #[test]
    fn what_no_declared_signer_signed_neither_moves_the_serial_nor_stops_the_agent() {
        let (key, stranger, bundle) = (key(), key(), sample("a.test"));
        let agent = (&key, "uid");
        let standing = compose(&Files::new(), agent, (0, 0), &bundle).unwrap().1;
        let standing = standing.unwrap();
        let jump = stating(&standing, &stranger, |it| it.serial = Serial::LAST);
        assert_eq!(compose(&jump, agent, (0, 1), &bundle).unwrap().0, 2);
        let clone = stating(&standing, &stranger, |it| it.cluster_uid = "x".to_owned());
        assert_eq!(compose(&clone, agent, (0, 1), &bundle).unwrap().0, 2);
    }

    #[test]
    fn serials_that_were_used_up_end_with_their_epoch() {
        let (key, bundle) = (key(), sample("a.test"));
        let agent = (&key, "uid");
        let standing = compose(&Files::new(), agent, (0, 0), &bundle).unwrap().1;
        let last = stating(&standing.unwrap(), &key, |it| it.serial = Serial::LAST);
        let refused = compose(&last, agent, (0, 1), &sample("a.test")).unwrap_err();
        assert!(refused.contains("raise `epoch`"), "{refused}");
        let (serial, written) = compose(&last, agent, (1, 0), &bundle).unwrap();
        assert!(written.is_some());
        assert_eq!(serial, 1);
    }

    #[test]
    fn nothing_is_composed_while_the_lease_is_not_held() {
        let (key, bundle) = (key(), sample("a.test"));
        let declared = declaration(&[&key], 0);
        let tip = Files::new();
        let composed = compose_behind(Fence::closed(), &tip, (&key, "u"), &declared, 0, &bundle);
        let refused = composed.unwrap_err();
        assert!(refused.contains("does not hold the Lease"), "{refused}");
    }

    #[test]
    fn a_cloned_cluster_does_not_publish_until_the_epoch_is_raised() {
        let (key, bundle) = (key(), sample("a.test"));
        let files = compose(&BTreeMap::new(), (&key, "original"), (0, 0), &bundle)
            .unwrap()
            .1;
        let files = files.unwrap();
        let refused = compose(&files, (&key, "clone"), (0, 0), &bundle).unwrap_err();
        assert!(refused.contains("cluster UID original"), "{refused}");
        let (serial, written) = compose(&files, (&key, "clone"), (1, 0), &bundle).unwrap();
        assert!(written.is_some());
        assert_eq!(serial, 2);
    }
}
