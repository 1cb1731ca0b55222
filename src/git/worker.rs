//! The threads that libgit2 runs on.
//!
//! libgit2 blocks and can't be interrupted. A job that gave no answer in time is left behind with its
//! thread, and another thread takes over, with a directory of its own: what the one left behind may
//! still hold (locks, half a pack) is not in the way. Of such threads there is a limit; at it, nothing
//! is started until one of them ends.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Error, access::Remote, mirror::Settings, store::Store};

/// How many threads there may be: the one at work, and those left behind.
pub(super) const MAX_THREADS: usize = 4;

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// What runs jobs, one after the other.
pub(super) struct Worker {
    settings: Settings,
    remote: Remote,
    current: Mutex<Current>,
    /// Every thread holds one.
    threads: Arc<()>,
}

/// The thread at work.
struct Current {
    generation: u32,
    jobs: mpsc::Sender<Job>,
    left_behind: Arc<AtomicBool>,
}

impl Worker {
    pub(super) fn new(settings: Settings, remote: Remote) -> Self {
        let threads = Arc::new(());
        let current = Mutex::new(start(0, &settings, &remote, Arc::clone(&threads)));
        Self {
            settings,
            remote,
            current,
            threads,
        }
    }

    /// Runs a job. Its transfers are broken off in time for an orderly answer; without one, the
    /// thread is left behind.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let limit = self.settings.deadline;
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            // Whoever gave up meanwhile may have made the same request anew.
            if send.is_closed() {
                return;
            }
            store.deadline = Instant::now() + transfer_limit(limit);
            let result = job(store);
            if let Err(error) = &result {
                store.remake_if_broken(error);
            }
            // A caller that gave up needs no answer.
            drop(send.send(result));
        });
        let generation = self.submit(job);
        match tokio::time::timeout(limit, receive).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.replace(generation, limit)),
            Err(_) => {
                tracing::warn!(seconds = limit.as_secs(), "git gave no answer");
                Err(self.replace(generation, limit))
            }
        }
    }

    /// Hands a job to the thread at work; its generation.
    fn submit(&self, job: Job) -> u32 {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(mpsc::SendError(job)) = current.jobs.send(job) {
            // The thread died in a panic of a former job.
            *current = self.start(current.generation);
            drop(current.jobs.send(job));
        }
        current.generation
    }

    /// Leaves a thread behind, unless that was done already or there are too many; the error of the
    /// job that it did not do.
    fn replace(&self, generation: u32, limit: Duration) -> Error {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            // This one and the worker's own are no threads that hang.
            let running = Arc::strong_count(&self.threads) - 1;
            if running < MAX_THREADS {
                current.left_behind.store(true, Ordering::Release);
                *current = self.start(generation + 1);
            } else {
                tracing::error!(running, "all threads for git hang");
            }
        }
        Error::Timeout(limit)
    }

    fn start(&self, generation: u32) -> Current {
        start(
            generation,
            &self.settings,
            &self.remote,
            Arc::clone(&self.threads),
        )
    }
}

/// When transfers are broken off, so that a slow one ends by itself and its thread goes on.
fn transfer_limit(limit: Duration) -> Duration {
    limit * 3 / 4
}

/// The mirror's directory for a generation of threads.
fn directory(settings: &Settings, generation: u32) -> PathBuf {
    match generation {
        0 => settings.directory.clone(),
        _ => settings
            .directory
            .with_added_extension(generation.to_string()),
    }
}

fn start(generation: u32, settings: &Settings, remote: &Remote, alive: Arc<()>) -> Current {
    let (jobs, receive) = mpsc::channel::<Job>();
    let directory = directory(settings, generation);
    let left_behind = Arc::new(AtomicBool::new(false));
    let is_left_behind = Arc::clone(&left_behind);
    let mut store = Store::new(settings.clone(), remote.clone(), directory.clone());
    let thread = thread::Builder::new()
        .name("git".to_owned())
        .spawn(move || {
            for job in receive {
                job(&mut store);
            }
            drop(store);
            // What it made last may be incomplete, and nobody reads it any more.
            if is_left_behind.load(Ordering::Acquire) {
                remove(&directory);
            }
            drop(alive);
        });
    if let Err(error) = thread {
        tracing::error!(%error, "start the thread for git");
    }
    Current {
        generation,
        jobs,
        left_behind,
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, directory = %directory.display(), "a former mirror can't be removed");
    }
}
