//! Leader election: of the agents of one cluster, who holds the Lease writes.
//!
//! **Guaranteed:** while no request to the API server takes longer than the difference of the two
//! times of [`Timing`], no two agents write at once; a holder that can't renew begins no write after
//! its deadline, by a clock that nobody sets, and says so to itself before every single write
//! ([`Fence`]).
//!
//! **Not guaranteed:** Kubernetes does not know who wrote: a request that was sent in time, or by a
//! machine that was frozen and did not notice, may be carried out later. That is harmless: an apply
//! is of the whole desired state, and the next holder's pass puts it right; a push goes through only
//! on top of what was read (compare-and-swap), with the next serial.

mod election;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;

pub use self::election::Timing;
use self::election::{Election, Record, Turn};
use super::{Error, KubeCluster, apply::within};
use crate::model::manifest::FIELD_MANAGER;

/// How long one look or one write may take: several fit into what a holder has left.
const ATTEMPT: Duration = Duration::from_secs(4);

/// Where this agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It holds the Lease: it writes.
    Leader,
    /// Another one does.
    Standby {
        /// Its name.
        holder: String,
    },
    /// The Lease can't be read or written.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl Leadership {
    /// Whether it writes.
    pub fn leads(&self) -> bool {
        *self == Self::Leader
    }
}

/// The Lease is not held any more, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this agent does not hold the Lease: it writes nothing")]
pub struct NotHeld;

/// Whether a write may begin: asked before each.
#[derive(Clone, Debug)]
pub struct Fence(Option<Arc<Mutex<Option<Instant>>>>);

impl Fence {
    /// One that always lets through: without leader election.
    pub fn open() -> Self {
        Self(None)
    }

    /// One that lets through nothing until the Lease is held.
    pub fn closed() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether a write may begin now.
    pub fn check(&self) -> Result<(), NotHeld> {
        let Some(held) = &self.0 else { return Ok(()) };
        let until = *held.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) if Instant::now() < until => Ok(()),
            _ => Err(NotHeld),
        }
    }

    fn set(&self, until: Option<Instant>) {
        if let Some(held) = &self.0 {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }
}

/// A candidate for a Lease.
pub struct Candidate {
    api: Api<Lease>,
    /// The Lease.
    name: String,
    namespace: String,
    election: Election,
    timing: Timing,
    fence: Fence,
    clock: fn() -> Timestamp,
}

impl KubeCluster {
    /// A candidate for a Lease, under a name that no other one has. Without a namespace, of the one
    /// that the connection belongs to.
    pub fn candidate(
        &self,
        namespace: Option<&str>,
        lease: &str,
        name: String,
        fence: Fence,
        clock: fn() -> Timestamp,
    ) -> Candidate {
        let namespace = namespace.unwrap_or(self.client.default_namespace());
        let timing = Timing::default();
        Candidate {
            api: Api::namespaced(self.client.clone(), namespace),
            name: lease.to_owned(),
            namespace: namespace.to_owned(),
            election: Election::new(name, timing),
            timing,
            fence,
            clock,
        }
    }
}

impl Candidate {
    /// Takes the Lease when it is free and renews it, and tells of every change, until `leave`; then
    /// the Lease is given back, so that nobody has to wait.
    pub async fn run(
        mut self,
        leadership: &watch::Sender<Leadership>,
        leave: impl Future<Output = ()>,
    ) {
        tokio::pin!(leave);
        loop {
            if leadership.borrow().leads() && self.fence.check().is_err() {
                leadership.send_replace(Leadership::Unknown {
                    reason: "the Lease could not be renewed in time".to_owned(),
                });
            }
            let turn = self.attempt().await;
            self.tell(turn, leadership);
            let next = Instant::now() + self.timing.retry;
            // Who can't renew is out at the deadline, not at the next attempt.
            let next = match self.election.held_until() {
                Some(until) if until > Instant::now() => next.min(until),
                _ => next,
            };
            tokio::select! {
                () = &mut leave => break,
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        self.fence.set(None);
        if let Err(error) = self.give_back().await {
            tracing::warn!(%error, "the Lease is not given back: another agent waits until it is over");
        }
    }

    /// Looks, and writes if it is our turn.
    async fn attempt(&mut self) -> Result<Turn, Error> {
        let found = self.read().await?;
        let record = found.as_ref().map(record);
        let turn = self
            .election
            .turn(record.as_ref(), Instant::now(), (self.clock)());
        self.fence.set(self.election.held_until());
        if let Turn::Take(record) = &turn {
            let asked = Instant::now();
            match self.write(found, record).await {
                Ok(()) => self.election.taken(asked),
                // What was read is no longer there: another was faster, and is seen at the next look.
                Err(Error::Api { status, .. }) if status.code == 409 => {
                    return Ok(Turn::Wait("another agent".to_owned()));
                }
                Err(error) => return Err(error),
            }
            self.fence.set(self.election.held_until());
        }
        Ok(turn)
    }

    fn tell(&self, turn: Result<Turn, Error>, leadership: &watch::Sender<Leadership>) {
        let held = self.fence.check().is_ok();
        let now = match turn {
            _ if held => Leadership::Leader,
            Ok(Turn::Wait(holder)) => Leadership::Standby { holder },
            Ok(Turn::Take(_)) => Leadership::Unknown {
                reason: "the Lease was renewed too late".to_owned(),
            },
            Err(error) => Leadership::Unknown {
                reason: format!("the Lease {}/{}: {error}", self.namespace, self.name),
            },
        };
        leadership.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    async fn give_back(&mut self) -> Result<(), Error> {
        let Some(found) = self.read().await? else {
            return Ok(());
        };
        match self.election.release(&record(&found), (self.clock)()) {
            Some(released) => self.write(Some(found), &released).await,
            None => Ok(()),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        within(ATTEMPT, "get", self.what(), self.api.get_opt(&self.name)).await
    }

    /// Writes on top of what was read, or nothing: another's write in between makes it fail.
    async fn write(&self, found: Option<Lease>, record: &Record) -> Result<(), Error> {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let there = found.is_some();
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(
                    [("app.kubernetes.io/name".to_owned(), "trustweave".to_owned())].into(),
                ),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        write_to(record, lease.spec.get_or_insert_default());
        if there {
            let request = self.api.replace(&self.name, &parameters, &lease);
            within(ATTEMPT, "update", self.what(), request).await?;
        } else {
            let request = self.api.create(&parameters, &lease);
            within(ATTEMPT, "create", self.what(), request).await?;
        }
        Ok(())
    }

    fn what(&self) -> String {
        format!("Lease {}/{}", self.namespace, self.name)
    }
}

/// What a Lease says. One that says nothing is free.
fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
        acquired: spec.acquire_time.map(|MicroTime(at)| at),
        renewed: spec.renew_time.map(|MicroTime(at)| at),
    }
}

fn write_to(record: &Record, spec: &mut LeaseSpec) {
    spec.holder_identity = Some(record.holder.clone());
    spec.lease_duration_seconds = i32::try_from(record.duration.as_secs()).ok();
    spec.lease_transitions = Some(record.transitions);
    spec.acquire_time = record.acquired.map(MicroTime);
    spec.renew_time = record.renewed.map(MicroTime);
}
