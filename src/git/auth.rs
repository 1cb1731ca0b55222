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

/// The remote and the way in.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    auth: Option<BasicAuth>,
}

impl Remote {
    /// Accepts the URLs that can be talked to safely: `https`, and `git` without credentials.
    pub(super) fn parse(url: &str, auth: Option<BasicAuth>) -> Result<Self, Error> {
        let parsed = Url::parse(url)
            .map_err(|error| Error::Url(format!("`{url}` is not a URL: {error}")))?;
        if parsed.password().is_some() || !parsed.username().is_empty() {
            return Err(Error::Url(
                "the repository's URL carries credentials: put the token into a file".to_owned(),
            ));
        }
        match parsed.scheme() {
            "https" => {}
            "git" if auth.is_none() => {}
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
            auth,
        })
    }

    /// Callbacks that present the token once: libgit2 asks again for ever after a refusal.
    pub(super) fn callbacks<'a>(&self) -> Result<RemoteCallbacks<'a>, Error> {
        let mut callbacks = RemoteCallbacks::new();
        if let Some(auth) = &self.auth {
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
