//! Keys and certificates that the testbed makes for itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The files that an API server needs to prove itself and to issue tokens.
#[derive(Debug)]
pub(crate) struct ApiServerCredentials {
    /// The certificate authority, for kubeconfigs.
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) service_account_key: PathBuf,
    pub(crate) service_account_public_key: PathBuf,
}

impl ApiServerCredentials {
    /// Writes all of them into `directory`.
    pub(crate) fn write(directory: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "trustweave-testbed");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?
            .signed_by(&key, &authority)?;
        let service_account = KeyPair::generate()?;
        let write = |name: &str, content: String| {
            let path = directory.join(name);
            std::fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            authority: write("ca.crt", authority.pem())?,
            certificate: write("apiserver.crt", certificate.pem())?,
            key: write("apiserver.key", key.serialize_pem())?,
            service_account_key: write("service-account.key", service_account.serialize_pem())?,
            service_account_public_key: write(
                "service-account.pub",
                service_account.public_key_pem(),
            )?,
        })
    }
}

/// An ed25519 key pair for signing commits, bundles and logins.
#[derive(Clone, Debug)]
pub struct SshKey {
    /// The private key in OpenSSH's format, readable by its owner only.
    pub private: PathBuf,
    /// The public key as one line of an `authorized_keys` file.
    pub public: String,
}

/// Makes an SSH key pair: `<directory>/<name>` and `<directory>/<name>.pub`, as `ssh-keygen` does.
pub fn ssh_key(directory: &Path, name: &str) -> anyhow::Result<SshKey> {
    let mut key =
        ssh_key::PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519)
            .context("cannot make an SSH key")?;
    key.set_comment(name);
    let private = directory.join(name);
    key.write_openssh_file(&private, ssh_key::LineEnding::LF)
        .with_context(|| format!("cannot write {}", private.display()))?;
    let public = key
        .public_key()
        .to_openssh()
        .context("cannot write the public SSH key")?;
    std::fs::write(directory.join(format!("{name}.pub")), format!("{public}\n"))
        .with_context(|| format!("cannot write {}.pub", private.display()))?;
    Ok(SshKey { private, public })
}
