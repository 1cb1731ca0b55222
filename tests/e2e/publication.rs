//! What stands on a trust domain's branch, as tests read it, tamper with it, and compose it.

use std::{fs, path::Path};

use trustweave::{
    git::SigningKey,
    model::{
        attestation::{Attestation, NAMESPACE, Serial},
        bundle::Digest,
        repository::publication,
    },
};
use trustweave_testbed::{
    federation::{Federation, trust_domain},
    git::Change,
    ssh_key,
};

/// A bundle, the statement about it, and the statement's signature.
#[derive(Clone)]
pub(crate) struct Publication {
    pub(crate) bundle: Vec<u8>,
    pub(crate) statement: Vec<u8>,
    pub(crate) signature: String,
}

impl Publication {
    /// What stands on the branch of a cluster's trust domain.
    pub(crate) async fn read(federation: &Federation, cluster: &str) -> Self {
        let git = &federation.testbed.git;
        let branch = branch(cluster);
        let file = async |name| git.show(&branch, name).await.unwrap();
        Self {
            bundle: file(publication::BUNDLE).await.into_bytes(),
            statement: file(publication::ATTESTATION).await.into_bytes(),
            signature: file(publication::SIGNATURE).await,
        }
    }

    /// A bundle with a statement, signed with a key, whether the statement is true or not.
    pub(crate) fn signed(bundle: Vec<u8>, statement: &Attestation, key: &SigningKey) -> Self {
        let statement = statement.to_bytes();
        Self {
            bundle,
            signature: key.sign(NAMESPACE, &statement).unwrap(),
            statement,
        }
    }

    /// The same with another statement, signed with a key.
    pub(crate) fn stating(&self, key: &SigningKey, change: impl FnOnce(&mut Attestation)) -> Self {
        let mut statement: Attestation = serde_json::from_slice(&self.statement).unwrap();
        change(&mut statement);
        Self::signed(self.bundle.clone(), &statement, key)
    }

    /// The same about other bytes, under another serial, signed with a key.
    pub(crate) fn of(&self, bundle: Vec<u8>, serial: u64, key: &SigningKey) -> Self {
        let digest = Digest::of(&bundle);
        let stated = self.stating(key, |it| {
            (it.sha256, it.serial) = (digest, Serial(serial));
        });
        Self { bundle, ..stated }
    }

    /// Its files by name.
    pub(crate) fn files(&self) -> [(&'static str, &[u8]); 3] {
        [
            (publication::BUNDLE, &self.bundle),
            (publication::ATTESTATION, &self.statement),
            (publication::SIGNATURE, self.signature.as_bytes()),
        ]
    }

    /// Commits it on a branch, as its agent would.
    pub(crate) async fn commit(&self, federation: &Federation, branch: &str, subject: &str) {
        commit(federation, branch, &self.files(), subject).await;
    }
}

/// Commits files of a publication on a branch.
pub(crate) async fn commit(
    federation: &Federation,
    branch: &str,
    files: &[(&str, &[u8])],
    subject: &str,
) {
    let changes: Vec<Change<'_>> = files
        .iter()
        .map(|(name, content)| Change::Write(name, content))
        .collect();
    let git = &federation.testbed.git;
    git.change(branch, &changes, subject).await.unwrap();
}

/// The branch of a cluster's trust domain.
pub(crate) fn branch(cluster: &str) -> String {
    format!("trustweave/{}", trust_domain(cluster))
}

/// The signing key of a cluster's agent.
pub(crate) fn signing_key(federation: &Federation, cluster: &str) -> SigningKey {
    read_key(&federation.signer(cluster).unwrap().private)
}

/// A key that no declaration names.
pub(crate) fn stranger(federation: &Federation) -> SigningKey {
    let key = ssh_key(federation.testbed.directory(), "stranger").unwrap();
    read_key(&key.private)
}

fn read_key(file: &Path) -> SigningKey {
    SigningKey::from_openssh(&fs::read_to_string(file).unwrap()).unwrap()
}
