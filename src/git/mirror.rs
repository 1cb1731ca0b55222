//! A bare mirror of the repository, owned by a thread of its own.
//!
//! libgit2 blocks and can't be interrupted: every job has a deadline, after which its thread is left
//! behind and another takes over with a repository handle of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, Once, PoisonError, mpsc},
    thread,
    time::Duration,
};

use git2::{AutotagOption, ConfigLevel, Direction, FetchOptions, Oid};
use tokio::sync::oneshot;

use super::{
    BasicAuth, Draft, Error, Heads, Publish, Published, Repository, Tip,
    auth::{Purpose, Remote},
    objects,
    publish::{Pushed, backoff, push},
};
use crate::model::{
    repository::{Entry, RepoPath, Revision, Tree},
    trust_domain::TrustDomain,
};

/// How long libgit2 may wait to connect, and for each answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one job may take in all.
const DEADLINE: Duration = Duration::from_mins(2);

/// How often a publication is composed anew before the caller is told to come again.
const MAX_ATTEMPTS: u32 = 32;

/// Setting of the mirror: the remote's URL, once its first fetch was finished.
const COMPLETE: &str = "trustweave.mirrors";

/// The references of trust domains' own branches.
const PUBLICATIONS: &str = "refs/heads/trustweave/";

/// Where the repository is, and where its mirror is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The remote's URL: `https://…`, or `git://…`.
    pub url: String,
    /// The reviewed branch.
    pub branch: String,
    /// The mirror's directory. It is made, and may be removed at any time.
    pub directory: PathBuf,
    /// For `https`: user name and token.
    pub auth: Option<BasicAuth>,
    /// The same for pushes, if they need others.
    pub push_auth: Option<BasicAuth>,
}

/// A mirror of a remote repository.
pub struct Mirror {
    settings: Settings,
    remote: Remote,
    worker: Mutex<mpsc::Sender<Job>>,
}

type Job = Box<dyn FnOnce(&mut Store) + Send>;

impl Mirror {
    /// Prepares a mirror; nothing is fetched yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        initialise();
        let remote = Remote::parse(
            &settings.url,
            settings.auth.clone(),
            settings.push_auth.clone(),
        )?;
        let worker = Mutex::new(start(&settings, &remote));
        Ok(Self {
            settings,
            remote,
            worker,
        })
    }

    /// Runs a job on the worker's thread.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let result = job(store);
            if let Err(error) = &result {
                store.remake_if_broken(error);
            }
            // A caller that gave up needs no answer.
            drop(send.send(result));
        });
        {
            let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(mpsc::SendError(job)) = worker.send(job) {
                // The worker died in a panic of a former job.
                *worker = start(&self.settings, &self.remote);
                drop(worker.send(job));
            }
        }
        if let Ok(Ok(result)) = tokio::time::timeout(DEADLINE, receive).await {
            result
        } else {
            let fresh = start(&self.settings, &self.remote);
            *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            Err(Error::Timeout(DEADLINE))
        }
    }
}

impl Repository for Mirror {
    async fn fetch(&self) -> Result<Heads, Error> {
        self.run(Store::fetch).await
    }

    async fn tree(&self, revision: &Revision) -> Result<Tree, Error> {
        let revision = revision.clone();
        self.run(move |store| objects::tree(store.repository()?, &revision, &RepoPath::ROOT))
            .await
    }

    async fn publication(&self, revision: &Revision) -> Result<BTreeMap<String, Entry>, Error> {
        let revision = revision.clone();
        self.run(move |store| store.publication(&revision)).await
    }

    async fn holds(&self, revision: &Revision) -> Result<bool, Error> {
        let oid = objects::oid(revision)?;
        self.run(move |store| Ok(exists(store.repository()?, oid)))
            .await
    }

    async fn descends(&self, commit: &Revision, ancestor: &Revision) -> Result<bool, Error> {
        let (commit, ancestor) = (commit.clone(), ancestor.clone());
        self.run(move |store| store.descends(&commit, &ancestor))
            .await
    }

    async fn publish<F>(&self, request: Publish, mut compose: F) -> Result<Published, Error>
    where
        F: FnMut(&Tip) -> Option<Draft> + Send,
    {
        for attempt in 1..=MAX_ATTEMPTS {
            let (branch, directory) = (request.branch.clone(), request.directory.clone());
            let tip = self
                .run(move |store| store.tip(&branch, &directory))
                .await?;
            let Some(draft) = compose(&tip) else {
                return Ok(Published::Unchanged);
            };
            let job = request.clone();
            match self
                .run(move |store| store.commit_and_push(&job, &tip, &draft))
                .await?
            {
                Pushed::Accepted(revision) => {
                    return Ok(Published::Committed {
                        revision,
                        attempts: attempt,
                    });
                }
                Pushed::Overtaken(ours) => {
                    tracing::debug!(branch = request.branch, attempt, "others were faster");
                    tokio::time::sleep(backoff(attempt, &ours)).await;
                }
            }
        }
        Err(Error::Contended {
            branch: request.branch,
            attempts: MAX_ATTEMPTS,
        })
    }
}

/// A repository on this machine that is only read.
pub struct LocalRepository {
    pub(super) repository: git2::Repository,
    /// Where in the repository the opened directory is.
    directory: RepoPath,
}

impl LocalRepository {
    /// Opens the repository that a directory belongs to.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        initialise();
        let repository = git2::Repository::discover(directory).map_err(|source| Error::Open {
            path: directory.display().to_string(),
            source,
        })?;
        // A directory outside the worktree (a bare repository's own, say) stands for all of it.
        let inside = || {
            let worktree = repository.workdir()?.canonicalize().ok()?;
            let directory = directory.canonicalize().ok()?;
            let relative = directory.strip_prefix(worktree).ok()?.to_str()?;
            RepoPath::parse(relative).ok()
        };
        let directory = inside().unwrap_or(RepoPath::ROOT);
        Ok(Self {
            repository,
            directory,
        })
    }

    /// The commit that a name stands for, as in `git rev-parse`.
    pub fn resolve(&self, reference: &str) -> Result<Revision, Error> {
        let unknown = |source| Error::Unknown {
            reference: reference.to_owned(),
            source,
        };
        let object = self
            .repository
            .revparse_single(reference)
            .map_err(unknown)?;
        objects::revision(object.peel_to_commit().map_err(unknown)?.id())
    }

    /// Every file of a commit below the opened directory, by its path in there.
    pub fn tree(&self, revision: &Revision) -> Result<Tree, Error> {
        objects::tree(&self.repository, revision, &self.directory)
    }

    /// The files of a publication in a directory of a commit, by name; the path is the repository's.
    pub fn files(
        &self,
        revision: &Revision,
        directory: &RepoPath,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        objects::files(&self.repository, revision, directory)
    }
}

/// Makes libgit2 independent of the machine's configuration, and gives it time limits.
#[expect(
    unsafe_code,
    reason = "libgit2's process-wide options are unsafe functions"
)]
fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let milliseconds = i32::try_from(SERVER_TIMEOUT.as_millis()).unwrap_or(i32::MAX);
        let levels = [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG];
        // SAFETY: the options are plain process-wide variables that libgit2 reads without
        // synchronisation; `Once` runs this before the first repository or connection is made by
        // this crate, and nothing else in the process uses libgit2.
        let results = unsafe {
            [
                git2::opts::set_server_connect_timeout_in_milliseconds(milliseconds),
                git2::opts::set_server_timeout_in_milliseconds(milliseconds),
                git2::opts::set_search_path(levels[0], ""),
                git2::opts::set_search_path(levels[1], ""),
                git2::opts::set_search_path(levels[2], ""),
            ]
        };
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "an option of libgit2 can't be set");
        }
    });
}

fn start(settings: &Settings, remote: &Remote) -> mpsc::Sender<Job> {
    let (send, receive) = mpsc::channel::<Job>();
    let mut store = Store {
        settings: settings.clone(),
        remote: remote.clone(),
        repository: None,
        unreadable: BTreeSet::new(),
    };
    let thread = thread::Builder::new()
        .name("git".to_owned())
        .spawn(move || {
            for job in receive {
                job(&mut store);
            }
        });
    if let Err(error) = thread {
        tracing::error!(%error, "start the thread for git");
    }
    send
}

/// The mirror's repository, on the worker's thread.
pub(super) struct Store {
    settings: Settings,
    pub(super) remote: Remote,
    repository: Option<git2::Repository>,
    /// Tips whose history libgit2 can't read: with one of them here, it could neither fetch nor push
    /// anything else.
    unreadable: BTreeSet<Oid>,
}

impl Store {
    /// The mirror, made if it isn't there, made anew if it can't be used or mirrors another remote.
    pub(super) fn repository(&mut self) -> Result<&git2::Repository, Error> {
        if self.repository.is_none() {
            let directory = &self.settings.directory;
            let usable = git2::Repository::open_bare(directory)
                .ok()
                .filter(|found| mirrors(found, &self.remote.url));
            let repository = match usable {
                Some(repository) => repository,
                None => create(directory)?,
            };
            self.repository = Some(repository);
        }
        self.repository.as_ref().ok_or_else(|| Error::Open {
            path: self.settings.directory.display().to_string(),
            source: git2::Error::from_str("no repository"),
        })
    }

    /// The branches of the remote, by their full names.
    pub(super) fn list(&mut self) -> Result<BTreeMap<String, Oid>, Error> {
        let (url, callbacks) = (
            self.remote.url.clone(),
            self.remote.callbacks(Purpose::Read)?,
        );
        let failed = |source| Error::Fetch {
            url: url.clone(),
            source,
        };
        let mut remote = self.repository()?.remote_anonymous(&url).map_err(failed)?;
        let connection = remote
            .connect_auth(Direction::Fetch, Some(callbacks), None)
            .map_err(failed)?;
        let heads = connection.list().map_err(failed)?;
        Ok(heads
            .iter()
            .filter(|head| head.name().starts_with("refs/heads/"))
            .map(|head| (head.name().to_owned(), head.oid()))
            .collect())
    }

    /// Fetches the branches named, all at once, if they are not there already; where they point now.
    ///
    /// That may be further than the remote's list said: a branch can move between list and fetch,
    /// and then a first, shallow fetch has only what it points at now.
    fn fetch_branches(
        &mut self,
        wanted: BTreeMap<String, Oid>,
    ) -> Result<BTreeMap<String, Oid>, Error> {
        self.fetch_missing(&wanted)?;
        let unreadable = self.unreadable.clone();
        let repository = self.repository()?;
        Ok(wanted
            .into_iter()
            .map(|(name, listed)| {
                let fetched = match repository.refname_to_id(&name) {
                    Ok(fetched) if !unreadable.contains(&listed) => fetched,
                    _ => listed,
                };
                (name, fetched)
            })
            .collect())
    }

    /// Fetches what is not here. A server may take malformed commits from whoever may push to a
    /// branch: such a branch is left out, in a mirror that is made anew.
    fn fetch_missing(&mut self, wanted: &BTreeMap<String, Oid>) -> Result<(), Error> {
        loop {
            let fetched = self.fetch_readable(wanted)?;
            let repository = self.repository()?;
            let malformed: Vec<Oid> = fetched
                .iter()
                .filter(|name| name.starts_with(PUBLICATIONS))
                .filter_map(|name| repository.refname_to_id(name).ok())
                .filter(|tip| !is_readable(repository, *tip))
                .collect();
            if malformed.is_empty() {
                return Ok(());
            }
            tracing::warn!(commits = ?malformed, "malformed commits are left out");
            self.unreadable.extend(malformed);
            self.repository = None;
            create(&self.settings.directory)?;
        }
    }

    /// Fetches what is neither here nor known to be unreadable; the references that changed.
    fn fetch_readable(&mut self, wanted: &BTreeMap<String, Oid>) -> Result<Vec<String>, Error> {
        let unreadable = self.unreadable.clone();
        let (url, callbacks) = (
            self.remote.url.clone(),
            self.remote.callbacks(Purpose::Read)?,
        );
        let failed = |source| Error::Fetch {
            url: url.clone(),
            source,
        };
        let repository = self.repository()?;
        let missing: Vec<String> = wanted
            .iter()
            .filter(|(_, oid)| !unreadable.contains(oid))
            .filter(|(name, oid)| {
                repository.refname_to_id(name).ok() != Some(**oid) || !exists(repository, **oid)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if missing.is_empty() {
            return Ok(missing);
        }
        let refspecs: Vec<String> = missing
            .iter()
            .map(|name| format!("+{name}:{name}"))
            .collect();
        // Depth 1 again and again would add a boundary and a pack each time; without a depth, a
        // shallow repository keeps its boundary and fetches what is new.
        let first = repository.is_empty().unwrap_or(true);
        let mut options = FetchOptions::new();
        options
            .download_tags(AutotagOption::None)
            .update_fetchhead(false);
        options.depth(i32::from(first)).remote_callbacks(callbacks);
        let mut remote = repository.remote_anonymous(&url).map_err(failed)?;
        remote
            .fetch(&refspecs, Some(&mut options), None)
            .map_err(failed)?;
        if first {
            // Only now: libgit2 writes a shallow repository's boundary last, and a process that was
            // killed before would leave a history with a hole, which no push gets over.
            repository
                .config()
                .and_then(|mut config| config.set_str(COMPLETE, &url))
                .map_err(failed)?;
        }
        Ok(missing)
    }

    /// Whether a commit was left out, as its history is malformed.
    pub(super) fn is_left_out(&self, commit: Oid) -> bool {
        self.unreadable.contains(&commit)
    }

    /// What stands at the names of a publication's files at the root of a commit.
    fn publication(&mut self, revision: &Revision) -> Result<BTreeMap<String, Entry>, Error> {
        if self.is_left_out(objects::oid(revision)?) {
            return Err(Error::Malformed(revision.clone()));
        }
        objects::publication(self.repository()?, revision, &RepoPath::ROOT)
    }

    /// Makes the mirror anew before its next use, if an error tells that objects are missing or
    /// broken. All that it holds is at the remote.
    fn remake_if_broken(&mut self, error: &Error) {
        if error.is_broken_store() {
            tracing::warn!(%error, "the mirror is broken; it is made anew");
            self.repository = None;
            if let Err(error) = fs::remove_dir_all(&self.settings.directory) {
                tracing::warn!(%error, "the broken mirror can't be removed");
            }
        }
    }

    fn fetch(&mut self) -> Result<Heads, Error> {
        let main = format!("refs/heads/{}", self.settings.branch);
        let mut wanted = self.list()?;
        wanted.retain(|name, _| *name == main || published_by(name).is_some());
        let fetched = self.fetch_branches(wanted)?;
        self.forget_others(&fetched)?;
        let mut heads = Heads::default();
        for (name, oid) in fetched {
            let revision = objects::revision(oid)?;
            if name == main {
                heads.main = Some(revision);
            } else if let Some(trust_domain) = published_by(&name) {
                heads.publications.insert(trust_domain, revision);
            }
        }
        Ok(heads)
    }

    fn descends(&mut self, commit: &Revision, ancestor: &Revision) -> Result<bool, Error> {
        let (commit, ancestor) = (objects::oid(commit)?, objects::oid(ancestor)?);
        if is_descendant(self.repository()?, commit, ancestor)? {
            return Ok(true);
        }
        if !self.repository()?.is_shallow() {
            return Ok(false);
        }
        self.deepen()?;
        is_descendant(self.repository()?, commit, ancestor)
    }

    /// Fetches the whole history of the reviewed branch.
    fn deepen(&mut self) -> Result<(), Error> {
        let main = format!("refs/heads/{}", self.settings.branch);
        let (url, callbacks) = (
            self.remote.url.clone(),
            self.remote.callbacks(Purpose::Read)?,
        );
        let failed = |source| Error::Fetch {
            url: url.clone(),
            source,
        };
        let mut options = FetchOptions::new();
        options
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            // As libgit2's GIT_FETCH_DEPTH_UNSHALLOW.
            .depth(i32::MAX)
            .remote_callbacks(callbacks);
        let mut remote = self.repository()?.remote_anonymous(&url).map_err(failed)?;
        remote
            .fetch(&[format!("+{main}:{main}")], Some(&mut options), None)
            .map_err(failed)
    }

    /// Removes references to branches that the remote no longer has.
    fn forget_others(&mut self, wanted: &BTreeMap<String, Oid>) -> Result<(), Error> {
        let failed = |source| Error::Read {
            what: "the mirror's references".to_owned(),
            source,
        };
        let references = self.repository()?.references().map_err(failed)?;
        for reference in references {
            let mut reference = reference.map_err(failed)?;
            let known = reference
                .name()
                .is_ok_and(|name| !name.starts_with("refs/heads/") || wanted.contains_key(name));
            if !known {
                reference.delete().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The remote's branch as it is now, with the files of one directory.
    fn tip(&mut self, branch: &str, directory: &RepoPath) -> Result<Tip, Error> {
        let name = format!("refs/heads/{branch}");
        let Some(listed) = self.list()?.get(&name).copied() else {
            return Ok(Tip::default());
        };
        let fetched = self.fetch_branches(BTreeMap::from([(name, listed)]))?;
        let Some(oid) = fetched.into_values().next() else {
            return Ok(Tip::default());
        };
        let revision = objects::revision(oid)?;
        let files = if self.is_left_out(oid) {
            BTreeMap::new()
        } else {
            objects::files(self.repository()?, &revision, directory)?
        };
        Ok(Tip {
            revision: Some(revision),
            files,
        })
    }

    fn commit_and_push(
        &mut self,
        request: &Publish,
        tip: &Tip,
        draft: &Draft,
    ) -> Result<Pushed, Error> {
        push(self, request, tip, draft)
    }
}

/// Whose publication a reference is by its name.
///
/// No other one is fetched: `a.test/x` would take the place of `a.test` among the mirror's
/// references, and then nothing could be fetched at all.
fn published_by(reference: &str) -> Option<TrustDomain> {
    TrustDomain::parse(reference.strip_prefix(PUBLICATIONS)?).ok()
}

/// Whether libgit2 can walk all of a commit's history that is here.
fn is_readable(repository: &git2::Repository, tip: Oid) -> bool {
    let walk = || {
        let mut walk = repository.revwalk()?;
        walk.push(tip)?;
        walk.try_for_each(|commit| repository.find_commit(commit?).map(drop))
    };
    walk().is_ok()
}

fn exists(repository: &git2::Repository, oid: Oid) -> bool {
    repository.odb().is_ok_and(|odb| odb.exists(oid))
}

/// Whether a commit is `ancestor`, or descends from it, by the history that is here.
fn is_descendant(repository: &git2::Repository, commit: Oid, ancestor: Oid) -> Result<bool, Error> {
    let read = |source| Error::Read {
        what: format!("the history of {commit}"),
        source,
    };
    Ok(commit == ancestor
        || exists(repository, ancestor)
            && repository
                .graph_descendant_of(commit, ancestor)
                .map_err(read)?)
}

/// Whether a repository was made for this remote, and its first fetch was finished.
fn mirrors(repository: &git2::Repository, url: &str) -> bool {
    repository
        .config()
        .and_then(|config| config.get_string(COMPLETE))
        .is_ok_and(|mirrored| mirrored == url)
}

fn create(directory: &Path) -> Result<git2::Repository, Error> {
    let path = || directory.display().to_string();
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(|source| Error::Directory {
            path: path(),
            source,
        })?;
    }
    fs::create_dir_all(directory).map_err(|source| Error::Directory {
        path: path(),
        source,
    })?;
    let open = |source| Error::Open {
        path: path(),
        source,
    };
    git2::Repository::init_bare(directory).map_err(open)
}
