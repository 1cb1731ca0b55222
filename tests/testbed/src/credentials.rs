//! Keys and certificates that the testbed makes for itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// The certificate authority of one cluster, and the directory that everything it issues is written to.
pub(crate) struct ClusterAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The files that an API server needs to prove itself and to issue tokens.
#[derive(Debug)]
pub(crate) struct ApiServerCredentials {
    /// The certificate authority, for kubeconfigs.
    pub(crate) authority: PathBuf,
    pub(crate) server: CertificateFiles,
    pub(crate) service_account_key: PathBuf,
    pub(crate) service_account_public_key: PathBuf,
}

impl ClusterAuthority {
    /// Makes a new one, and the directory.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority
            .distinguished_name
            .push(DnType::CommonName, "trustweave-testbed");
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?,
            directory: directory.to_owned(),
        })
    }

    /// What the API server needs that is called by these names and addresses.
    pub(crate) fn api_server(&self, names: &[String]) -> anyhow::Result<ApiServerCredentials> {
        let service_account = KeyPair::generate()?;
        Ok(ApiServerCredentials {
            authority: self.write("ca.crt", &self.issuer.pem())?,
            server: self.server("apiserver", names)?,
            service_account_key: self
                .write("service-account.key", &service_account.serialize_pem())?,
            service_account_public_key: self
                .write("service-account.pub", &service_account.public_key_pem())?,
        })
    }

    /// A server's certificate for names and addresses.
    pub(crate) fn server(&self, file: &str, names: &[String]) -> anyhow::Result<CertificateFiles> {
        let mut certificate = CertificateParams::new(names)?;
        certificate
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        self.issue(file, &certificate)
    }

    /// A client's certificate; Kubernetes takes its common name for a user and its organization for a group.
    pub(crate) fn client(
        &self,
        file: &str,
        user: &str,
        group: &str,
    ) -> anyhow::Result<CertificateFiles> {
        let mut certificate = CertificateParams::default();
        let name = &mut certificate.distinguished_name;
        name.push(DnType::CommonName, user);
        name.push(DnType::OrganizationName, group);
        certificate
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(file, &certificate)
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> anyhow::Result<CertificateFiles> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(CertificateFiles {
            certificate: self.write(&format!("{file}.crt"), &certificate.pem())?,
            key: self.write(&format!("{file}.key"), &key.serialize_pem())?,
        })
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
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
