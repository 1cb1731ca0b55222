//! Mirrors of a git server, and what is published there.

use std::collections::BTreeMap;

use trustweave::{
    git::{Author, Draft, Mirror, Publish, Settings, SigningKey, Tip},
    model::repository::RepoPath,
};
use trustweave_testbed::Testbed;

/// A git server without any cluster.
pub(crate) async fn testbed() -> Testbed {
    Testbed::start(&[], &|_| ()).await.unwrap()
}

/// Settings for a mirror of its own.
pub(crate) fn settings(testbed: &Testbed, url: &str, name: &str) -> Settings {
    Settings::new(url, "main", testbed.directory().join(name))
}

pub(crate) fn mirror(settings: Settings) -> Mirror {
    Mirror::new(settings).unwrap()
}

/// A publication on a branch.
pub(crate) fn request(branch: &str, directory: &str, key: &SigningKey) -> Publish {
    Publish {
        branch: branch.to_owned(),
        directory: RepoPath::parse(directory).unwrap(),
        author: Author {
            name: "agent".to_owned(),
            email: "agent@example.com".to_owned(),
            seconds: 1_700_000_000,
        },
        key: key.clone(),
    }
}

/// Writes the content, unless it stands there already.
pub(crate) fn put(content: &str) -> impl FnMut(&Tip) -> Option<Draft> + Send {
    move |tip| {
        let standing = tip.files.get("bundle.json").map(Vec::as_slice);
        (standing != Some(content.as_bytes())).then(|| Draft {
            files: BTreeMap::from([("bundle.json".to_owned(), content.as_bytes().to_vec())]),
            message: format!("publish {content}\n"),
        })
    }
}

pub(crate) fn key() -> SigningKey {
    SigningKey::generate("agent").unwrap()
}
