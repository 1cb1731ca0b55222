//! The mirror's repository, on the worker's thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use git2::{AutotagOption, Direction, FetchOptions, Oid, Repository};
use jiff::Timestamp;

use super::{
    Draft, Error, Heads, Pin, Proposal, Proposed, Publish, Review, Tip,
    access::{Purpose, Remote},
    mirror::Settings,
    objects, proposal,
    publish::{Pushed, push},
    signers::{AllowedSigners, Policy, Unverified},
    size::Size,
};
use crate::model::{
    bundle::Digest,
    repository::{Entry, RepoPath, Revision},
    trust_domain::TrustDomain,
};

/// Setting of the mirror: the remote's URL, once its first fetch was finished.
const COMPLETE: &str = "trustweave.mirrors";

/// The references of trust domains' own branches.
const PUBLICATIONS: &str = "refs/heads/trustweave/";

/// The references of proposals; they are nobody's publications.
const PROPOSALS: &str = "refs/heads/trustweave-proposals/";

/// References by their full names, and what they point at.
type References = BTreeMap<String, Oid>;

/// The mirror's repository.
pub(super) struct Store {
    settings: Settings,
    pub(super) remote: Remote,
    directory: PathBuf,
    repository: Option<Repository>,
    /// When transfers of the job under way are broken off.
    pub(super) deadline: Instant,
    /// Tips whose history libgit2 can't read: with one of them here, it could neither fetch nor push
    /// anything else.
    unreadable: BTreeSet<Oid>,
    /// How large the mirror was when it was made or opened.
    first_size: Option<Size>,
    /// Whether it may have grown since it was measured.
    unmeasured: bool,
    /// The judgement about a tip, by a version of the allowed signers.
    judged: Option<((Oid, Digest), Option<String>)>,
}

impl Store {
    pub(super) fn new(settings: Settings, remote: Remote, directory: PathBuf) -> Self {
        Self {
            settings,
            remote,
            directory,
            repository: None,
            deadline: Instant::now(),
            unreadable: BTreeSet::new(),
            first_size: None,
            unmeasured: true,
            judged: None,
        }
    }

    /// The mirror, made if it isn't there, made anew if it can't be used or mirrors another remote.
    pub(super) fn repository(&mut self) -> Result<&Repository, Error> {
        if self.repository.is_none() {
            let usable = Repository::open_bare(&self.directory)
                .ok()
                .filter(|found| mirrors(found, &self.remote.url));
            let repository = match usable {
                Some(repository) => repository,
                None => create(&self.directory)?,
            };
            self.repository = Some(repository);
        }
        self.repository.as_ref().ok_or_else(|| Error::Open {
            path: self.directory.display().to_string(),
            source: git2::Error::from_str("no repository"),
        })
    }

    /// The reference that is reviewed: the branch, or the tag that is pinned.
    fn reviewed(&self) -> String {
        match &self.settings.pin {
            Some(Pin::Tag(tag)) => format!("refs/tags/{tag}"),
            Some(Pin::Commit(_)) | None => format!("refs/heads/{}", self.settings.branch),
        }
    }

    /// The branches of the remote, and the reviewed reference.
    pub(super) fn list(&mut self) -> Result<References, Error> {
        let (url, reviewed, proxy) = (
            self.remote.url.clone(),
            self.reviewed(),
            self.remote.proxy()?,
        );
        let dialogue = self.remote.dialogue(Purpose::Read, self.deadline)?;
        let (callbacks, host_key) = dialogue.split();
        let failed = |source| host_key.or_fetch(&url, source);
        let mut remote = self.repository()?.remote_anonymous(&url).map_err(failed)?;
        let connection = remote
            .connect_auth(Direction::Fetch, Some(callbacks), Some(proxy))
            .map_err(failed)?;
        let heads = connection.list().map_err(failed)?;
        Ok(heads
            .iter()
            .filter(|head| head.name().starts_with("refs/heads/") || head.name() == reviewed)
            .map(|head| (head.name().to_owned(), head.oid()))
            .collect())
    }

    /// Fetches the references named, all at once, if they are not there already; where they point now.
    ///
    /// That may be further than the remote's list said: a branch can move between list and fetch,
    /// and then a first, shallow fetch has only what it points at now.
    fn fetch_references(&mut self, wanted: References) -> Result<References, Error> {
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

    /// Fetches what is not here; whether that was anything. A server may take malformed commits from
    /// whoever may push to a branch: such a branch is left out, in a mirror that is made anew.
    fn fetch_missing(&mut self, wanted: &References) -> Result<(), Error> {
        loop {
            let fetched = self.fetch_readable(wanted)?;
            self.unmeasured |= !fetched.is_empty();
            let repository = self.repository()?;
            let malformed: Vec<Oid> = fetched
                .iter()
                .filter(|name| name.starts_with(PUBLICATIONS) || name.starts_with(PROPOSALS))
                .filter_map(|name| repository.refname_to_id(name).ok())
                .filter(|tip| !is_readable(repository, *tip))
                .collect();
            if malformed.is_empty() {
                return Ok(());
            }
            tracing::warn!(commits = ?malformed, "malformed commits are left out");
            self.unreadable.extend(malformed);
            self.repository = None;
            create(&self.directory)?;
        }
    }

    /// Fetches what is neither here nor known to be unreadable; the references that changed.
    fn fetch_readable(&mut self, wanted: &References) -> Result<Vec<String>, Error> {
        let unreadable = self.unreadable.clone();
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
        // Depth 1 again and again would add a boundary and a pack each time; without a depth, a
        // shallow repository keeps its boundary and fetches what is new.
        let first = repository.is_empty().unwrap_or(true);
        let depth = i32::from(first && self.remote.may_be_shallow());
        self.download(&missing, depth)?;
        if first {
            // Only now: libgit2 writes a shallow repository's boundary last, and a process that was
            // killed before would leave a history with a hole, which no push gets over.
            let url = self.remote.url.clone();
            self.repository()?
                .config()
                .and_then(|mut config| config.set_str(COMPLETE, &url))
                .map_err(|source| Error::Fetch { url, source })?;
        }
        Ok(missing)
    }

    /// Fetches references under their own names, whatever they were before.
    fn download(&mut self, names: &[String], depth: i32) -> Result<(), Error> {
        let refspecs: Vec<String> = names.iter().map(|name| format!("+{name}:{name}")).collect();
        let (url, proxy) = (self.remote.url.clone(), self.remote.proxy()?);
        let dialogue = self.remote.dialogue(Purpose::Read, self.deadline)?;
        let (callbacks, host_key) = dialogue.split();
        let failed = |source| host_key.or_fetch(&url, source);
        let mut options = FetchOptions::new();
        options
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .depth(depth)
            .proxy_options(proxy)
            .remote_callbacks(callbacks);
        let mut remote = self.repository()?.remote_anonymous(&url).map_err(failed)?;
        remote
            .fetch(&refspecs, Some(&mut options), None)
            .map_err(failed)
    }

    /// Whether a commit was left out, as its history is malformed.
    pub(super) fn is_left_out(&self, commit: Oid) -> bool {
        self.unreadable.contains(&commit)
    }

    /// What stands at the names of a publication's files at the root of a commit.
    pub(super) fn publication(
        &mut self,
        revision: &Revision,
    ) -> Result<BTreeMap<String, Entry>, Error> {
        if self.is_left_out(objects::oid(revision)?) {
            return Err(Error::Malformed(revision.clone()));
        }
        objects::publication(self.repository()?, revision, &RepoPath::ROOT)
    }

    /// Makes the mirror anew before its next use, if an error tells that objects are missing or
    /// broken. All that it holds is at the remote.
    pub(super) fn remake_if_broken(&mut self, error: &Error) {
        if error.is_broken_store() {
            tracing::warn!(%error, "the mirror is broken; it is made anew");
            self.repository = None;
            self.first_size = None;
            if let Err(error) = fs::remove_dir_all(&self.directory) {
                tracing::warn!(%error, "the broken mirror can't be removed");
            }
        }
    }

    /// Lists the references, fetches what changed, and judges the reviewed tip.
    pub(super) fn fetch(&mut self) -> Result<Heads, Error> {
        let reviewed = self.reviewed();
        let mut wanted = self.list()?;
        wanted.retain(|name, _| *name == reviewed || published_by(name).is_some());
        let fetched = self.fetch_references(wanted)?;
        self.forget_others(&fetched)?;
        let mut heads = Heads::default();
        for (name, oid) in &fetched {
            if *name == reviewed {
                let commit = self.pinned(*oid)?;
                heads.main = Some(objects::revision(commit)?);
                heads.unverified = self.judge(commit)?;
            } else if let Some(trust_domain) = published_by(name) {
                heads
                    .publications
                    .insert(trust_domain, objects::revision(*oid)?);
            }
        }
        self.renew_if_grown(&fetched);
        Ok(heads)
    }

    /// The commit that the reviewed reference leads to. A pinned commit has to be part of the reviewed
    /// branch: whoever may push to any other must not decide what is applied.
    fn pinned(&mut self, target: Oid) -> Result<Oid, Error> {
        let Some(Pin::Commit(pin)) = self.settings.pin.clone() else {
            let object = self.repository()?.find_object(target, None);
            let object = object.map_err(|source| Error::Read {
                what: format!("the reviewed object {target}"),
                source,
            })?;
            let commit = object.peel_to_commit().map_err(|source| Error::Unknown {
                reference: target.to_string(),
                source,
            })?;
            return Ok(commit.id());
        };
        if self.descends(&objects::revision(target)?, &pin)? {
            return objects::oid(&pin);
        }
        Err(Error::NotReviewed {
            commit: pin,
            branch: self.settings.branch.clone(),
        })
    }

    /// Why the policy does not let a commit be taken, if so.
    fn judge(&mut self, commit: Oid) -> Result<Option<String>, Error> {
        let Policy::Head(file) = self.settings.policy.clone() else {
            return Ok(None);
        };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            // Nobody is allowed then.
            Err(error) => {
                let reason = format!("`{}`: {error}", file.display());
                return Ok(Some(Unverified::Unreadable(reason).to_string()));
            }
        };
        let by = (commit, Digest::of(text.as_bytes()));
        if let Some((known, judgement)) = &self.judged
            && *known == by
        {
            return Ok(judgement.clone());
        }
        let judgement = verify(self.repository()?, commit, &text)?.err();
        let judgement = judgement.map(|why| why.to_string());
        self.judged = Some((by, judgement.clone()));
        Ok(judgement)
    }

    /// Makes the mirror anew if it has grown: libgit2 never packs, nor removes what nothing refers to.
    /// The former is in use until the new one is complete, and goes on if it can't be made.
    fn renew_if_grown(&mut self, wanted: &References) {
        if !std::mem::take(&mut self.unmeasured) {
            return;
        }
        let size = Size::of(&self.directory);
        let first = *self.first_size.get_or_insert(size);
        if !size.has_grown(first, self.settings.max_files) {
            return;
        }
        tracing::info!(
            files = size.files,
            bytes = size.bytes,
            "the mirror has grown; it is made anew"
        );
        if let Err(error) = self.renew(wanted) {
            tracing::warn!(%error, "the mirror can't be made anew");
        }
    }

    fn renew(&mut self, wanted: &References) -> Result<(), Error> {
        let unfinished = self.directory.with_added_extension("new");
        let former = self.directory.clone();
        let standing = self.repository.replace(create(&unfinished)?);
        self.directory.clone_from(&unfinished);
        let made = self.fetch_missing(wanted);
        self.directory.clone_from(&former);
        if let Err(error) = made {
            self.repository = standing;
            drop(fs::remove_dir_all(&unfinished));
            return Err(error);
        }
        self.repository = None;
        drop(standing);
        self.first_size = None;
        let moved = fs::remove_dir_all(&former).and_then(|()| fs::rename(&unfinished, &former));
        moved.map_err(|source| Error::Directory {
            path: former.display().to_string(),
            source,
        })
    }

    /// Whether a commit is `ancestor`, or descends from it; what the shallow first fetch left out is
    /// fetched if need be.
    pub(super) fn descends(
        &mut self,
        commit: &Revision,
        ancestor: &Revision,
    ) -> Result<bool, Error> {
        let reviewed = self.reviewed();
        self.descends_on(&reviewed, objects::oid(commit)?, objects::oid(ancestor)?)
    }

    /// The same for a commit that a reference leads to.
    fn descends_on(&mut self, reference: &str, commit: Oid, ancestor: Oid) -> Result<bool, Error> {
        if is_descendant(self.repository()?, commit, ancestor)? {
            return Ok(true);
        }
        if !self.repository()?.is_shallow() {
            return Ok(false);
        }
        // The whole history of the reference, as libgit2's GIT_FETCH_DEPTH_UNSHALLOW.
        self.download(&[reference.to_owned()], i32::MAX)?;
        is_descendant(self.repository()?, commit, ancestor)
    }

    /// Removes references to what the remote no longer has.
    fn forget_others(&mut self, wanted: &References) -> Result<(), Error> {
        let failed = |source| Error::Read {
            what: "the mirror's references".to_owned(),
            source,
        };
        let references = self.repository()?.references().map_err(failed)?;
        for reference in references {
            let mut reference = reference.map_err(failed)?;
            let known = reference.name().is_ok_and(|name| {
                let ours = name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
                // No proposal but the agent's own is ever fetched: that one need not be fetched again.
                !ours || wanted.contains_key(name) || name.starts_with(PROPOSALS)
            });
            if !known {
                reference.delete().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The remote's branch as it is now, with the files of one directory.
    pub(super) fn tip(&mut self, branch: &str, directory: &RepoPath) -> Result<Tip, Error> {
        self.remote.check_writable()?;
        let name = format!("refs/heads/{branch}");
        let Some(listed) = self.list()?.get(&name).copied() else {
            return Ok(Tip::default());
        };
        let fetched = self.fetch_references(BTreeMap::from([(name, listed)]))?;
        self.tip_at(fetched.into_values().next(), directory)
    }

    /// A commit that was fetched, with the files of one directory.
    fn tip_at(&mut self, commit: Option<Oid>, directory: &RepoPath) -> Result<Tip, Error> {
        let Some(oid) = commit else {
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

    pub(super) fn commit_and_push(
        &mut self,
        request: &Publish,
        tip: &Tip,
        draft: &Draft,
    ) -> Result<Pushed, Error> {
        self.unmeasured = true;
        push(self, request, tip, draft)
    }

    /// The base of a proposal and its own branch, as they are now.
    pub(super) fn review(&mut self, proposal: &Proposal) -> Result<Review, Error> {
        self.remote.check_writable()?;
        let directory = &proposal.publication.directory;
        let name = |branch: &str| format!("refs/heads/{branch}");
        let (base, own) = (name(&proposal.base), name(&proposal.publication.branch));
        let listed = self.list()?;
        let mut fetch = |name: &String| {
            let found = listed.get(name).map(|oid| (name.clone(), *oid));
            let fetched = self.fetch_references(found.into_iter().collect())?;
            Ok::<_, Error>(fetched.into_values().next())
        };
        // One after the other: the first, shallow fetch of all would leave out what the proposal is
        // made on top of.
        let tips = (fetch(&base)?, fetch(&own)?);
        let mergeable = match tips {
            (Some(onto), Some(proposed)) if !self.is_left_out(proposed) => {
                let parent = proposal::parent(self.repository()?, directory, onto, proposed)?;
                match parent {
                    Some(parent) => self.descends_on(&base, onto, parent)?,
                    None => false,
                }
            }
            _ => false,
        };
        let proposed = match tips.1 {
            Some(_) => Some(self.tip_at(tips.1, directory)?),
            None => None,
        };
        Ok(Review {
            base: self.tip_at(tips.0, directory)?,
            proposed,
            mergeable,
        })
    }

    pub(super) fn propose(
        &mut self,
        proposal: &Proposal,
        review: &Review,
        draft: Option<&Draft>,
    ) -> Result<Proposed, Error> {
        self.unmeasured = true;
        proposal::propose(self, proposal, review, draft)
    }

    /// Whether a commit is here.
    pub(super) fn holds(&mut self, commit: Oid) -> Result<bool, Error> {
        Ok(exists(self.repository()?, commit))
    }
}

/// Verifies a commit by the text of an allowed signers file.
fn verify(
    repository: &Repository,
    commit: Oid,
    allowed: &str,
) -> Result<Result<(), Unverified>, Error> {
    let failed = |source| Error::Read {
        what: format!("commit {commit}"),
        source,
    };
    let (signature, content) = match repository.extract_signature(&commit, None) {
        Ok(found) => found,
        Err(error) if error.code() == git2::ErrorCode::NotFound => {
            return Ok(Err(Unverified::Unsigned));
        }
        Err(error) => return Err(failed(error)),
    };
    let found = repository.find_commit(commit).map_err(failed)?;
    let time = Timestamp::from_second(found.committer().when().seconds()).unwrap_or_default();
    let allowed = AllowedSigners::parse(allowed);
    Ok(allowed.and_then(|allowed| allowed.verify(&content, &signature, time)))
}

/// Whose publication a reference is by its name.
///
/// No other one is fetched: `a.test/x` would take the place of `a.test` among the mirror's
/// references, and then nothing could be fetched at all.
fn published_by(reference: &str) -> Option<TrustDomain> {
    TrustDomain::parse(reference.strip_prefix(PUBLICATIONS)?).ok()
}

/// Whether libgit2 can walk all of a commit's history that is here.
fn is_readable(repository: &Repository, tip: Oid) -> bool {
    let walk = || {
        let mut walk = repository.revwalk()?;
        walk.push(tip)?;
        walk.try_for_each(|commit| repository.find_commit(commit?).map(drop))
    };
    walk().is_ok()
}

fn exists(repository: &Repository, oid: Oid) -> bool {
    repository.odb().is_ok_and(|odb| odb.exists(oid))
}

/// Whether a commit is `ancestor`, or descends from it, by the history that is here.
fn is_descendant(repository: &Repository, commit: Oid, ancestor: Oid) -> Result<bool, Error> {
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
fn mirrors(repository: &Repository, url: &str) -> bool {
    repository
        .config()
        .and_then(|config| config.get_string(COMPLETE))
        .is_ok_and(|mirrored| mirrored == url)
}

fn create(directory: &Path) -> Result<Repository, Error> {
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
    Repository::init_bare(directory).map_err(open)
}
