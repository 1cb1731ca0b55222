//! Who we are to the remote, and which remotes are talked to at all.

use std::path::PathBuf;

use git2::{Cred, CredentialType, RemoteCallbacks};
use url::Url;

use super::Error;

/// A user name, and the file that holds the token. The file is read for every connection, so a
/// rotated token is used at once.
#[derive(Clone, Debug)]
pub struct BasicAuth {
    /// The user name.
    pub username: String,
    /// The file that holds the token; surrounding white space is ignored.
    pub token_file: PathBuf,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Listing and fetching.
    Read,
    /// Pushing.
    Write,
}

/// The remote and the ways in.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    read: Option<BasicAuth>,
    write: Option<BasicAuth>,
}

impl Remote {
    /// Accepts the URLs that can be talked to safely: `https`, and `git` without credentials.
    ///
    /// Without credentials for pushing, those for reading are used.
    pub(super) fn parse(
        url: &str,
        read: Option<BasicAuth>,
        write: Option<BasicAuth>,
    ) -> Result<Self, Error> {
        let write = write.or_else(|| read.clone());
        let parsed = Url::parse(url)
            .map_err(|error| Error::Url(format!("`{url}` is not a URL: {error}")))?;
        if parsed.password().is_some() || !parsed.username().is_empty() {
            return Err(Error::Url(
                "the repository's URL carries credentials: put the token into a file".to_owned(),
            ));
        }
        match parsed.scheme() {
            "https" => {}
            "git" if read.is_none() && write.is_none() => {}
            "git" | "http" => {
                return Err(Error::Url(format!(
                    "`{}` would send credentials or content unprotected: use https",
                    parsed.scheme()
                )));
            }
            other => {
                return Err(Error::Url(format!(
                    "the transport `{other}` is not supported: use https"
                )));
            }
        }
        Ok(Self {
            url: url.to_owned(),
            read,
            write,
        })
    }

    /// Callbacks that present the token once: libgit2 asks again for ever after a refusal.
    pub(super) fn callbacks<'a>(&self, purpose: Purpose) -> Result<RemoteCallbacks<'a>, Error> {
        let mut callbacks = RemoteCallbacks::new();
        let auth = match purpose {
            Purpose::Read => &self.read,
            Purpose::Write => &self.write,
        };
        if let Some(auth) = auth {
            let token =
                std::fs::read_to_string(&auth.token_file).map_err(|source| Error::Token {
                    path: auth.token_file.display().to_string(),
                    source,
                })?;
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
        }
        Ok(callbacks)
    }
}
