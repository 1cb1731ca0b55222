//! Notices a changed configuration, or a changed signing key, without a restart of the pod.
//!
//! Kubernetes swaps a mounted `ConfigMap` or `Secret` by renaming a link in its directory, so the
//! directories are watched, not the files; whatever happens there only means: read again, compare.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{
    Shared,
    config::{self, Config},
};
use crate::model::bundle::Digest;

/// A swap is several events: they are gathered this long.
const GATHER: Duration = Duration::from_millis(250);

/// Where no event comes (network file systems), the files are read again after this long.
const POLL: Duration = Duration::from_mins(1);

/// The files that a running agent depends on.
fn files(path: &Path, config: &Config) -> Vec<PathBuf> {
    let key = config
        .signing
        .iter()
        .filter_map(|signing| signing.key_file.clone());
    [path.to_owned()].into_iter().chain(key).collect()
}

/// The digest of all contents; a file that can't be read counts as empty.
fn contents(files: &[PathBuf]) -> Digest {
    let mut all = Vec::new();
    for file in files {
        all.extend(std::fs::read(file).unwrap_or_default());
        all.push(0);
    }
    Digest::of(&all)
}

/// Reads and parses the configuration file.
pub fn read(path: &Path) -> anyhow::Result<Config> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the configuration in `{name}`"))?;
    config::parse(&name, &text).map_err(|diagnostic| anyhow::anyhow!("{diagnostic}"))
}

/// What a look at the files found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Same,
    Usable,
    /// Changed, but not usable, and why.
    Broken(String),
}

/// A watch of files: of their directories, and whether what is in them differs.
struct Files {
    paths: Vec<PathBuf>,
    known: Digest,
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Files {
    /// Watches files from now on.
    fn watch(paths: Vec<PathBuf>) -> anyhow::Result<Self> {
        let (send, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |_| {
            // One that waits already says the same.
            send.try_send(()).ok();
        })
        .context("watch files")?;
        let directories: BTreeSet<&Path> = paths.iter().filter_map(|file| file.parent()).collect();
        for directory in directories {
            let directory = if directory.as_os_str().is_empty() {
                Path::new(".")
            } else {
                directory
            };
            watcher
                .watch(directory, RecursiveMode::NonRecursive)
                .with_context(|| format!("watch `{}`", directory.display()))?;
        }
        Ok(Self {
            known: contents(&paths),
            paths,
            events,
            _watcher: watcher,
        })
    }

    /// Completes when something happened in the directories, or some time has passed.
    async fn event(&mut self) {
        if let Ok(None) = tokio::time::timeout(POLL, self.events.recv()).await {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(GATHER).await;
    }

    /// Whether the contents differ from what they were at the last look.
    fn differ(&mut self) -> bool {
        let former = std::mem::replace(&mut self.known, contents(&self.paths));
        former != self.known
    }
}

/// Has the remote looked at when a file changed that is read for every connection: whoever waits for
/// a repaired token need not wait for the next poll. A directory that is not there is not watched.
pub(super) async fn credentials(shared: Arc<Shared>) -> anyhow::Result<()> {
    let files = shared.config.credential_files().into_iter();
    let files: Vec<PathBuf> = files
        .filter(|file| file.parent().is_some_and(Path::is_dir))
        .collect();
    let mut files = Files::watch(files)?;
    while shared
        .stop
        .run_until_cancelled(files.event())
        .await
        .is_some()
    {
        if files.differ() {
            tracing::info!(
                "git's credentials, or whom it trusts, changed: they are used from now on"
            );
            shared.look_now.notify_one();
        }
    }
    Ok(())
}

/// A watch of the files that an agent was started with.
pub struct Watch {
    path: PathBuf,
    files: Files,
}

impl Watch {
    /// Watches the configuration file and what it names, from now on.
    pub fn new(path: &Path, config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            files: Files::watch(files(path, config))?,
        })
    }

    /// Completes when the configuration or the key changed to something usable; what is not usable
    /// is logged once, and the agent goes on as it was.
    pub async fn changed(&mut self) {
        loop {
            self.files.event().await;
            match self.look() {
                Look::Same => {}
                Look::Usable => return,
                Look::Broken(error) => tracing::warn!(
                    error,
                    "the changed configuration is not usable; the former stays in force"
                ),
            }
        }
    }

    fn look(&mut self) -> Look {
        if !self.files.differ() {
            return Look::Same;
        }
        match read(&self.path) {
            Ok(_) => Look::Usable,
            Err(error) => Look::Broken(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TEXT: &str = "apiVersion: trustweave.dev/v1alpha1\nkind: AgentConfig\ncluster: a\n\
                        trustDomain: a.test\ngit: {url: 'https://git.example/r', stateDir: /tmp}\n";

    fn watch(path: &Path) -> Watch {
        fs::write(path, TEXT).unwrap();
        Watch::new(path, &read(path).unwrap()).unwrap()
    }

    #[test]
    fn only_a_usable_change_counts() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("config.yaml");
        let mut watch = watch(&path);
        assert_eq!(watch.look(), Look::Same);
        fs::write(&path, TEXT.replace("cluster", "clutser")).unwrap();
        assert!(matches!(watch.look(), Look::Broken(why) if why.contains("`cluster`")));
        assert_eq!(watch.look(), Look::Same);
        fs::write(&path, format!("{TEXT}listen: 127.0.0.1:1\n")).unwrap();
        assert_eq!(watch.look(), Look::Usable);
    }

    #[tokio::test]
    async fn a_swapped_file_is_noticed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("config.yaml");
        let mut watch = watch(&path);
        // As Kubernetes does: the new content appears by a rename.
        let unfinished = directory.path().join("unfinished");
        fs::write(&unfinished, format!("{TEXT}listen: 127.0.0.1:1\n")).unwrap();
        fs::rename(&unfinished, &path).unwrap();
        let noticed = tokio::time::timeout(Duration::from_secs(30), watch.changed()).await;
        assert!(noticed.is_ok(), "the change was not noticed within 30 s");
    }
}
