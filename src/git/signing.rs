//! Signatures with an SSH key, as `ssh-keygen -Y sign` makes them.

use std::{fmt, sync::Arc};

use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, rand_core::OsRng};
use zeroize::Zeroizing;

use super::Error;

/// An SSH private key that signs bundles and commits.
#[derive(Clone)]
pub struct SigningKey(Arc<PrivateKey>);

impl fmt::Debug for SigningKey {
    /// The public half only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.fingerprint())
            .finish()
    }
}

impl SigningKey {
    /// Makes a new ed25519 key; `comment` is what its public half is labelled with.
    pub fn generate(comment: &str) -> Result<Self, Error> {
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)
            .map_err(|error| Error::Key(error.to_string()))?;
        key.set_comment(comment);
        Ok(Self(Arc::new(key)))
    }

    /// The private half, in OpenSSH's format, to be kept where nobody else reads it.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, Error> {
        self.0
            .to_openssh(LineEnding::LF)
            .map_err(|error| Error::Key(error.to_string()))
    }

    /// Reads a key in OpenSSH's format, without a passphrase.
    pub fn from_openssh(text: &str) -> Result<Self, Error> {
        // The cause is not repeated: it could quote the key.
        let key = PrivateKey::from_openssh(text).map_err(|_| {
            Error::Key(
                "not a private key in OpenSSH's format (make one with `ssh-keygen -t ed25519`)"
                    .into(),
            )
        })?;
        if key.is_encrypted() {
            return Err(Error::Key(
                "it has a passphrase, which nobody is there to type: make one without".into(),
            ));
        }
        if key.algorithm().is_rsa() {
            // Its private operations leak through their timing (RUSTSEC-2023-0071).
            return Err(Error::Key(
                "it is an RSA key: make an ed25519 key with `ssh-keygen -t ed25519`".into(),
            ));
        }
        Ok(Self(Arc::new(key)))
    }

    /// The public half, as one line of a `.pub` file.
    pub fn public_key(&self) -> String {
        self.0.public_key().to_openssh().unwrap_or_default()
    }

    /// Whether this is the public half, whatever its comment.
    pub fn is(&self, public: &PublicKey) -> bool {
        self.0.public_key().key_data() == public.key_data()
    }

    /// The public half's fingerprint, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.0.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// Signs bytes for a purpose (PROTOCOL.sshsig, `namespace`); the armored signature.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, Error> {
        self.0
            .sign(namespace, HashAlg::Sha512, message)
            .and_then(|signature| signature.to_pem(LineEnding::LF))
            .map_err(|error| Error::Key(error.to_string()))
    }
}
