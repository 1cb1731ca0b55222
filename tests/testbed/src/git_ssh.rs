//! The repository by ssh: a real OpenSSH server, with keys of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use ssh_key::PublicKey;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::git_https::Right;
use crate::process::Process;
use crate::{Testbed, port};

/// Where Debian's package puts the server.
const SSHD: &str = "/usr/sbin/sshd";

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA.
    Rsa,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// A key of a host or of somebody who connects.
#[derive(Clone, Debug)]
pub struct Key {
    /// The file with its private half, in OpenSSH's format.
    pub file: PathBuf,
    /// Its public half.
    pub public: PublicKey,
}

impl Key {
    /// Makes one with `ssh-keygen`, which writes its private half to a file that only its owner reads.
    pub fn generate(file: &Path, kind: KeyKind) -> anyhow::Result<Self> {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "testbed", "-t", kind.name(), "-f"])
            .arg(file)
            .stdin(Stdio::null())
            .output()
            .context("cannot run ssh-keygen: `apt-get install openssh-client`")?;
        anyhow::ensure!(
            output.status.success(),
            "ssh-keygen made no key: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let public = file.with_added_extension("pub");
        let public = PublicKey::read_openssh_file(&public)
            .with_context(|| format!("cannot read {}", public.display()))?;
        Ok(Self {
            file: file.to_owned(),
            public,
        })
    }

    fn line(&self) -> anyhow::Result<String> {
        Ok(self.public.to_openssh()?)
    }
}

/// An OpenSSH server with the testbed's repository, until it is dropped.
pub struct SshGit {
    url: String,
    port: u16,
    host_keys: Vec<Key>,
    process: Process,
}

impl SshGit {
    /// Serves the testbed's repository to whoever has one of the keys.
    pub async fn start(
        testbed: &Testbed,
        name: &str,
        host_keys: &[KeyKind],
        rights: &[(&Key, Right)],
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            Path::new(SSHD).is_file(),
            "the testbed serves git by ssh: `apt-get install openssh-server`"
        );
        let directory = testbed.directory().join(name);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        if rustix::process::geteuid().is_root() {
            // As the package's service does, where there is one.
            std::fs::create_dir_all("/run/sshd").context("cannot make /run/sshd")?;
        }
        let host_keys = host_keys.iter().map(|kind| {
            let file = directory.join(format!("host-key-{}", kind.name()));
            Key::generate(&file, *kind)
        });
        let host_keys: Vec<Key> = host_keys.collect::<anyhow::Result<_>>()?;
        let repository = testbed.git.path().display().to_string();
        let mut authorized = String::new();
        for (key, right) in rights {
            let options = match right {
                // Whatever is asked for.
                Right::Read => format!("restrict,command=\"git upload-pack '{repository}'\" "),
                Right::Write => "restrict ".to_owned(),
            };
            writeln!(authorized, "{options}{}", key.line()?)?;
        }
        std::fs::write(directory.join("authorized_keys"), authorized)
            .context("cannot write authorized_keys")?;
        let user = testbed.run(Path::new("/usr/bin/id"), ["-un"]).await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = port::free()?;
            match serve(testbed, &directory, port, &host_keys).await {
                Err(error) if attempts < 2 && port::was_taken(&error) => {}
                Err(error) => return Err(error),
                Ok(process) => {
                    let user = user.trim();
                    return Ok(Self {
                        url: format!("ssh://{user}@127.0.0.1:{port}{repository}"),
                        port,
                        host_keys,
                        process,
                    });
                }
            }
        }
    }

    /// `ssh://<user>@127.0.0.1:<port>/…`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The lines that name the host's keys in a `known_hosts` file.
    pub fn known_hosts(&self) -> anyhow::Result<String> {
        let keys = self.host_keys.iter();
        let lines = keys.map(|key| Ok(format!("[127.0.0.1]:{} {}\n", self.port, key.line()?)));
        lines.collect()
    }

    /// The line that names another key for the same host.
    pub fn known_by(&self, key: &Key) -> anyhow::Result<String> {
        Ok(format!("[127.0.0.1]:{} {}\n", self.port, key.line()?))
    }

    /// What the server has to say.
    pub fn log(&self) -> anyhow::Result<String> {
        let log = self.process.log();
        std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))
    }
}

/// Runs the server in the foreground, with nobody's configuration but ours.
async fn serve(
    testbed: &Testbed,
    directory: &Path,
    port: u16,
    host_keys: &[Key],
) -> anyhow::Result<Process> {
    let mut configuration = format!(
        "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\n\
         AuthorizedKeysFile {}\nAuthenticationMethods publickey\nPermitRootLogin prohibit-password\n\
         SetEnv GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1\nLogLevel VERBOSE\n",
        directory.join("authorized_keys").display()
    );
    for key in host_keys {
        let _ = writeln!(configuration, "HostKey {}", key.file.display());
    }
    let file = directory.join("sshd_config");
    std::fs::write(&file, configuration)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let arguments = ["-D".into(), "-e".into(), "-f".into(), file.into_os_string()];
    let environment: [(&str, &str); 0] = [];
    let log = directory.join("sshd.log");
    let process = testbed.spawn("sshd", Path::new(SSHD), arguments, environment, &log)?;
    process
        .until_ready(Duration::from_secs(10), async || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).await?;
            Ok((greeting == *b"SSH-").then_some(()))
        })
        .await?;
    Ok(process)
}
