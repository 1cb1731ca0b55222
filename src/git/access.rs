//! Who we are to the remote, how it is known to be the right one, and which remotes are talked to at
//! all.
//!
//! Every file is read again for every connection, so that what was rotated is used at once.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use git2::{
    CertificateCheckStatus, Cred, CredentialType, ProxyOptions, RemoteCallbacks, cert::Cert,
};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Error,
    known_hosts::{self, HostKeyMismatch},
    libgit2,
};

/// A user name, and the file that holds the token.
#[derive(Clone, Debug)]
pub struct BasicAuth {
    /// The user name.
    pub username: String,
    /// The file that holds the token, or password; surrounding white space is ignored.
    pub token_file: PathBuf,
}

/// What a remote is shown of us.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// For `https`.
    Basic(BasicAuth),
    /// For `ssh`: the file that holds a private key (ed25519, ECDSA or RSA) without a passphrase.
    Key(PathBuf),
}

/// An HTTP proxy on the way to an `https` remote.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its URL, `http://…` or `https://…`, without credentials.
    pub url: String,
    /// What it is shown of us.
    pub auth: Option<BasicAuth>,
}

/// How a remote is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Credentials for listing and fetching, and for pushing too if there are no others.
    pub read: Option<Credentials>,
    /// Credentials for pushing.
    pub write: Option<Credentials>,
    /// For `ssh`: the file with the keys that hosts may show, as OpenSSH's `known_hosts`.
    pub known_hosts: Option<PathBuf>,
    /// For `https`: certificate authorities (PEM) that are trusted on top of the system's.
    pub authorities: Option<PathBuf>,
    /// For `https`: the proxy on the way. The environment's proxies are not looked at.
    pub proxy: Option<Proxy>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Listing and fetching.
    Read,
    /// Pushing.
    Write,
}

/// The protocols that remotes are talked to by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Https,
    Ssh,
    /// Nothing is secret, and nothing is proven: for networks that see to that themselves.
    Git,
    /// A directory of this machine, which is only read.
    File,
}

/// The remote and the ways in.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    transport: Transport,
    /// The port that `ssh` connects to.
    port: u16,
    access: Access,
}

impl Remote {
    /// Accepts the URLs that can be talked to safely, with what they need for that.
    pub(super) fn parse(url: &str, access: Access) -> Result<Self, Error> {
        let parsed = parse_url(url)?;
        let unsuited = |what: &str| Err(Error::Url(what.to_owned()));
        let transport = match parsed.scheme() {
            "https" => Transport::Https,
            "ssh" => Transport::Ssh,
            "git" => Transport::Git,
            "file" => Transport::File,
            "http" => {
                return unsuited("`http` would send credentials or content unprotected: use https");
            }
            other => {
                let message = format!("the transport `{other}` is not supported: use https or ssh");
                return Err(Error::Url(message));
            }
        };
        let named = !parsed.username().is_empty() && transport != Transport::Ssh;
        if parsed.password().is_some() || named {
            return unsuited("the repository's URL carries credentials: put the token into a file");
        }
        if let Some(proxy) = &access.proxy {
            check_proxy(proxy)?;
        }
        let all = [&access.read, &access.write];
        let basic = all
            .iter()
            .any(|it| matches!(it, Some(Credentials::Basic(_))));
        let key = all.iter().any(|it| matches!(it, Some(Credentials::Key(_))));
        match transport {
            Transport::Ssh if access.known_hosts.is_none() => {
                return unsuited(
                    "`ssh` needs a known_hosts file: no key of a host is trusted at first sight",
                );
            }
            Transport::Ssh if basic => return unsuited("`ssh` takes a key, and no token"),
            Transport::Ssh if access.read.is_none() => return unsuited("`ssh` needs a key"),
            Transport::Https if key => return unsuited("`https` takes a token, and no ssh key"),
            Transport::Git if basic || key => {
                return unsuited("`git` would send credentials or content unprotected: use https");
            }
            _ => {}
        }
        Ok(Self {
            url: url.to_owned(),
            transport,
            port: parsed.port().unwrap_or(22),
            access,
        })
    }

    /// Whether a fetch may leave older history out: libgit2 can't on a directory.
    pub(super) fn may_be_shallow(&self) -> bool {
        self.transport != Transport::File
    }

    /// Refuses to push where libgit2 does not compare and swap.
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        if self.transport == Transport::File {
            let message = "a `file` repository is only read: publish by https or ssh";
            return Err(Error::Url(message.to_owned()));
        }
        Ok(())
    }

    /// Makes ready for a connection. Credentials are shown once: libgit2 asks again for ever after a
    /// refusal. A transfer that still goes on at `deadline` is broken off.
    pub(super) fn dialogue<'a>(
        &self,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Dialogue<'a>, Error> {
        let mut callbacks = RemoteCallbacks::new();
        let refused = Rc::new(RefCell::new(None));
        if let Some(authorities) = &self.access.authorities {
            libgit2::trust(authorities)?;
        }
        let write = self.access.write.as_ref();
        let credentials = match purpose {
            Purpose::Read => self.access.read.as_ref(),
            Purpose::Write => write.or(self.access.read.as_ref()),
        };
        match credentials {
            None => {}
            Some(Credentials::Basic(auth)) => show_token(&mut callbacks, auth)?,
            Some(Credentials::Key(file)) => show_key(&mut callbacks, file)?,
        }
        if let Some(known_hosts) = &self.access.known_hosts {
            let (known, port) = (read(known_hosts)?, self.port);
            let refused = Rc::clone(&refused);
            callbacks.certificate_check(move |certificate, host| {
                judge_host(certificate, &known, host, port).map_err(|why| {
                    *refused.borrow_mut() = Some(why);
                    git2::Error::from_str("the host's key is refused")
                })
            });
        }
        callbacks.transfer_progress(move |_| Instant::now() < deadline);
        Ok(Dialogue { callbacks, refused })
    }

    /// The proxy on the way, with its credentials.
    pub(super) fn proxy<'a>(&self) -> Result<ProxyOptions<'a>, Error> {
        let mut options = ProxyOptions::new();
        let Some(proxy) = &self.access.proxy else {
            return Ok(options);
        };
        let mut url = Url::parse(&proxy.url).map_err(|error| Error::Url(error.to_string()))?;
        if let Some(auth) = &proxy.auth {
            let token = read(&auth.token_file)?;
            let set = url.set_username(&auth.username);
            set.and_then(|()| url.set_password(Some(token.trim())))
                .map_err(|()| Error::Url("the proxy's URL takes no credentials".to_owned()))?;
        }
        options.url(url.as_str());
        Ok(options)
    }
}

/// What is said during one connection.
pub(super) struct Dialogue<'a> {
    pub(super) callbacks: RemoteCallbacks<'a>,
    refused: Rc<RefCell<Option<HostKeyMismatch>>>,
}

/// What became of the host's key in a connection.
#[derive(Clone)]
pub(super) struct HostKey(Rc<RefCell<Option<HostKeyMismatch>>>);

impl<'a> Dialogue<'a> {
    /// What libgit2 calls back, and where the refusal of a host's key is found afterwards, of which
    /// libgit2 itself says nothing more.
    pub(super) fn split(self) -> (RemoteCallbacks<'a>, HostKey) {
        (self.callbacks, HostKey(self.refused))
    }
}

impl HostKey {
    /// The error of a connection whose host showed a key that is not taken.
    pub(super) fn refusal(&self, url: &str) -> Option<Error> {
        let source = self.0.borrow_mut().take()?;
        Some(Error::HostKey {
            url: url.to_owned(),
            source,
        })
    }

    /// The error of a connection that failed while something was read.
    pub(super) fn or_fetch(&self, url: &str, source: git2::Error) -> Error {
        self.refusal(url).unwrap_or_else(|| Error::Fetch {
            url: url.to_owned(),
            source,
        })
    }
}

fn show_token(callbacks: &mut RemoteCallbacks<'_>, auth: &BasicAuth) -> Result<(), Error> {
    let token = read(&auth.token_file)?;
    let (username, mut asked) = (auth.username.clone(), false);
    callbacks.credentials(move |_, _, allowed| {
        if std::mem::replace(&mut asked, true) {
            return Err(git2::Error::from_str("the server refused the token"));
        }
        if !allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
            return Err(git2::Error::from_str(
                "the server takes no user name and token",
            ));
        }
        Cred::userpass_plaintext(&username, token.trim())
    });
    Ok(())
}

fn show_key(callbacks: &mut RemoteCallbacks<'_>, file: &Path) -> Result<(), Error> {
    let (key, mut asked) = (read(file)?, false);
    callbacks.credentials(move |_, username, allowed| {
        let username = username.unwrap_or("git");
        // Asked first if the URL names nobody.
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(username);
        }
        if std::mem::replace(&mut asked, true) {
            return Err(git2::Error::from_str("the server refused the ssh key"));
        }
        if !allowed.contains(CredentialType::SSH_KEY) {
            return Err(git2::Error::from_str("the server takes no ssh key"));
        }
        Cred::ssh_key_from_memory(username, None, &key, None)
    });
    Ok(())
}

/// Decides about what a host showed. TLS certificates were verified by libgit2 already.
fn judge_host(
    certificate: &Cert<'_>,
    known: &str,
    host: &str,
    port: u16,
) -> Result<CertificateCheckStatus, HostKeyMismatch> {
    let Some(shown) = certificate.as_hostkey() else {
        return Ok(CertificateCheckStatus::CertificatePassthrough);
    };
    let key = shown.hostkey().unwrap_or_default();
    known_hosts::check(known, host, port, key)?;
    Ok(CertificateCheckStatus::CertificateOk)
}

fn check_proxy(proxy: &Proxy) -> Result<(), Error> {
    let parsed = Url::parse(&proxy.url)
        .map_err(|error| Error::Url(format!("`{}` is not a URL: {error}", proxy.url)))?;
    let problem = if !matches!(parsed.scheme(), "http" | "https") {
        "the proxy's URL has to begin with `http://` or `https://`"
    } else if parsed.password().is_some() || !parsed.username().is_empty() {
        "the proxy's URL carries credentials: put the token into a file"
    } else {
        return Ok(());
    };
    Err(Error::Url(problem.to_owned()))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        path: path.display().to_string(),
        source,
    })?;
    Ok(Zeroizing::new(text))
}

/// The URL of a remote, also of one in the form `user@host:path`.
pub fn parse_url(url: &str) -> Result<Url, Error> {
    Url::parse(&of_scp(url).unwrap_or_else(|| url.to_owned()))
        .map_err(|error| Error::Url(format!("`{url}` is not a URL: {error}")))
}

/// `user@host:path`, as forges show it, in the form of a URL.
fn of_scp(address: &str) -> Option<String> {
    let (host, path) = address.split_once(':')?;
    let plain = !host.is_empty() && !host.contains('/') && !path.starts_with("//");
    let user = host.contains('@') && !path.is_empty();
    (plain && user).then(|| format!("ssh://{host}/{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, access: Access) -> String {
        match Remote::parse(url, access) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn token() -> Credentials {
        Credentials::Basic(BasicAuth {
            username: "bot".to_owned(),
            token_file: "/token".into(),
        })
    }

    fn key() -> Credentials {
        Credentials::Key("/key".into())
    }

    fn ssh() -> Access {
        Access {
            read: Some(key()),
            known_hosts: Some("/known_hosts".into()),
            ..Access::default()
        }
    }

    #[test]
    fn only_safe_remotes_are_talked_to() {
        let none = Access::default;
        let with_token = || Access {
            read: Some(token()),
            ..none()
        };
        for (url, access, expected) in [
            ("https://h/r", none(), "ok"),
            ("https://h/r", with_token(), "ok"),
            ("https://h/r", ssh(), "takes a token, and no ssh key"),
            ("https://bot@h/r", none(), "carries credentials"),
            ("https://bot:secret@h/r", none(), "carries credentials"),
            ("http://h/r", none(), "unprotected: use https"),
            ("git://h/r", none(), "ok"),
            ("git://h/r", with_token(), "unprotected: use https"),
            ("file:///r", none(), "ok"),
            ("ftp://h/r", none(), "`ftp` is not supported"),
            ("/r", none(), "is not a URL"),
            ("ssh://git@h/r", none(), "needs a known_hosts file"),
            ("ssh://git@h/r", ssh(), "ok"),
            ("ssh://h/r", ssh(), "ok"),
            ("ssh://git:secret@h/r", ssh(), "carries credentials"),
            ("git@h:o/r.git", ssh(), "ok"),
            ("git@h:o/r.git", none(), "needs a known_hosts file"),
        ] {
            let found = refusal(url, access);
            assert!(found.contains(expected), "{url}: {found}");
            assert!(!found.contains("secret"), "{found}");
        }
        let no_key = Access {
            read: None,
            ..ssh()
        };
        assert_eq!(refusal("ssh://h/r", no_key), "`ssh` needs a key");
        let mixed = Access {
            write: Some(token()),
            ..ssh()
        };
        assert_eq!(
            refusal("ssh://h/r", mixed),
            "`ssh` takes a key, and no token"
        );
        for (proxy, expected) in [
            ("http://p:3128", "ok"),
            ("socks5://p", "has to begin with"),
            ("http://me:secret@p", "carries credentials"),
        ] {
            let access = Access {
                proxy: Some(Proxy {
                    url: proxy.to_owned(),
                    auth: None,
                }),
                ..none()
            };
            let found = refusal("https://h/r", access);
            assert!(found.contains(expected), "{proxy}: {found}");
        }
    }

    #[test]
    fn the_port_of_ssh_is_known() {
        for (url, port) in [
            ("ssh://git@h/r", 22),
            ("ssh://git@h:2222/r", 2222),
            ("git@h:2222/r", 22),
        ] {
            assert_eq!(Remote::parse(url, ssh()).unwrap().port, port, "{url}");
        }
    }
}
