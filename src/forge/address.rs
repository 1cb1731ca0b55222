//! Where a project's API is: told from the repository's URL where it can be.

use thiserror::Error;
use url::Url;

use super::Kind;

/// Where a forge's API is, and which of its projects is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The API's root, `https://…`, without a slash at the end.
    pub api: Url,
    /// The project's path, as `owner/name`.
    pub project: String,
}

/// Why the address is not clear.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unclear {
    /// The API's root is no URL that a token may be sent to.
    #[error("`apiUrl` is {0}")]
    Api(String),
    /// The repository's URL does not tell the API's root.
    #[error("where the forge's API is can't be told from a `{0}` URL: set `apiUrl`")]
    NoApi(String),
    /// Neither the repository's URL nor the configuration names a project.
    #[error("`{path}` is not the path of a project ({form}): set `project`")]
    Project {
        /// What was found.
        path: String,
        /// What it should be.
        form: &'static str,
    },
}

impl Address {
    /// The address for a repository, where `api` and `project` say what its URL does not.
    pub fn of(
        kind: Kind,
        repository: &Url,
        api: Option<&str>,
        project: Option<&str>,
    ) -> Result<Self, Unclear> {
        let api = match api {
            Some(text) => safe(text)?,
            None => usual(kind, repository)
                .ok_or_else(|| Unclear::NoApi(repository.scheme().to_owned()))?,
        };
        let path = match project {
            Some(project) => project.to_owned(),
            None => path_in(repository, &api),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (form, fits) = match kind {
            Kind::GitLab => ("group/name, or with subgroups", parts.len() >= 2),
            Kind::GitHub | Kind::Gitea => ("owner/name", parts.len() == 2),
        };
        let sound = |part: &&str| !matches!(*part, "" | "." | "..");
        if !fits || !parts.iter().all(sound) {
            return Err(Unclear::Project { path, form });
        }
        Ok(Self { api, project: path })
    }
}

/// A URL that a token may be sent to.
fn safe(text: &str) -> Result<Url, Unclear> {
    let wrong = |what: &str| Err(Unclear::Api(what.to_owned()));
    let Ok(mut url) = Url::parse(text) else {
        return wrong("no URL");
    };
    if url.scheme() != "https" {
        return wrong("no `https` URL: the token would be sent unprotected");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("a URL with credentials: put the token into a file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("a URL with a query or a fragment");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Where the API of a forge is that serves a repository's URL.
fn usual(kind: Kind, repository: &Url) -> Option<Url> {
    // The port of ssh is not that of the API.
    let port = match repository.scheme() {
        "https" => repository.port(),
        "ssh" => None,
        _ => return None,
    };
    let host = repository.host_str()?.to_ascii_lowercase();
    // Where ssh is served on the port of https.
    let host = match host.as_str() {
        "ssh.github.com" => "github.com",
        "altssh.gitlab.com" => "gitlab.com",
        host => host,
    };
    let own = |path: &str| match port {
        Some(port) => format!("https://{host}:{port}{path}"),
        None => format!("https://{host}{path}"),
    };
    let text = match kind {
        Kind::GitHub if host == "github.com" || host.ends_with(".ghe.com") => {
            format!("https://api.{host}")
        }
        Kind::GitHub => own("/api/v3"),
        Kind::GitLab => own("/api/v4"),
        Kind::Gitea => own("/api/v1"),
    };
    Url::parse(&text).ok()
}

/// The project's path in a repository's URL, without what the forge itself is served under.
fn path_in(repository: &Url, api: &Url) -> String {
    let path = repository.path().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let prefix = api.path().trim_matches('/');
    let prefix = prefix.rsplit_once("/api/").map_or("", |(prefix, _)| prefix);
    let inside = path.strip_prefix(prefix).filter(|_| !prefix.is_empty());
    let inside = inside.and_then(|path| path.strip_prefix('/'));
    inside.unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, repository: &str, api: Option<&str>, project: Option<&str>) -> String {
        match Address::of(kind, &Url::parse(repository).unwrap(), api, project) {
            Ok(address) => format!("{} {}", address.api, address.project),
            Err(unclear) => unclear.to_string(),
        }
    }

    #[test]
    fn the_repository_tells_where_the_api_is() {
        use Kind::{GitHub, GitLab, Gitea};
        for (kind, repository, expected) in [
            (
                GitHub,
                "https://github.com/o/r.git",
                "https://api.github.com/ o/r",
            ),
            (
                GitHub,
                "ssh://git@github.com/o/r.git",
                "https://api.github.com/ o/r",
            ),
            (
                GitHub,
                "ssh://git@ssh.github.com:443/o/r",
                "https://api.github.com/ o/r",
            ),
            (
                GitHub,
                "https://x.ghe.com/o/r",
                "https://api.x.ghe.com/ o/r",
            ),
            (
                GitHub,
                "https://Git.corp/o/r",
                "https://git.corp/api/v3 o/r",
            ),
            (
                GitLab,
                "https://gitlab.com/a/b/c.git",
                "https://gitlab.com/api/v4 a/b/c",
            ),
            (GitLab, "ssh://git@h:2222/a/b", "https://h/api/v4 a/b"),
            (
                Gitea,
                "https://codeberg.org/o/r",
                "https://codeberg.org/api/v1 o/r",
            ),
            (Gitea, "https://h:3000/o/r.git", "https://h:3000/api/v1 o/r"),
        ] {
            assert_eq!(of(kind, repository, None, None), expected, "{repository}");
        }
    }

    #[test]
    fn what_it_does_not_tell_is_said() {
        let gitlab = |repository, api, project| of(Kind::GitLab, repository, api, project);
        let under = gitlab(
            "https://h/gitlab/a/b.git",
            Some("https://h/gitlab/api/v4/"),
            None,
        );
        assert_eq!(under, "https://h/gitlab/api/v4 a/b");
        let daemon = gitlab("git://h/r.git", Some("https://h/api/v4"), Some("a/b"));
        assert_eq!(daemon, "https://h/api/v4 a/b");
        assert_eq!(
            gitlab("git://h/a/b.git", None, None),
            "where the forge's API is can't be told from a `git` URL: set `apiUrl`"
        );
        for (api, why) in [
            ("h", "no URL"),
            ("http://h/api/v4", "unprotected"),
            ("https://me:secret@h/api/v4", "credentials"),
            ("https://h/api/v4?private_token=secret", "a query"),
        ] {
            let told = gitlab("https://h/a/b", Some(api), None);
            assert!(told.contains(why), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
        for (kind, repository, project) in [
            (Kind::GitHub, "https://github.com/r", None),
            (Kind::GitHub, "https://github.com/o/r/x", None),
            (Kind::GitLab, "https://gitlab.com/r.git", None),
            (Kind::Gitea, "https://h/o/r", Some("o/..")),
            (Kind::Gitea, "https://h/o/r", Some("/r")),
        ] {
            let told = of(kind, repository, None, project);
            assert!(told.contains("is not the path of a project"), "{told}");
        }
    }
}
