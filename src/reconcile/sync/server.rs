//! The SPIRE server of the cluster: reads what a decision about it needs, and carries it out.
//!
//! It comes last in a pass, and what goes wrong here is told and stops nothing else.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use super::{CONCURRENCY, Inputs, Sync, Writes, facts::Live, status_of, with_causes};
use crate::{
    cluster::{self, Cluster, Conflicts, Mode, types},
    federation::{
        conditions::Condition,
        server::{
            self, Decision, Facts, Memory, Piece, RESUME, SERVER_CONFIGURED, Step, TLS_ROUTE,
            Wanted, Write,
        },
    },
    git::Repository,
    model::{declarations::Declarations, manifest::ObjectRef},
    reconcile::report,
};

/// What came of it.
#[derive(Default)]
pub(super) struct Kept {
    /// What is told.
    pub(super) told: report::Server,
    /// What is to be watched.
    pub(super) watched: Vec<ObjectRef>,
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Has the own SPIRE server serve its bundle as declared, or gives it back.
    pub(super) async fn keep_server(
        &self,
        inputs: &Inputs<'_>,
        declarations: &Declarations,
        retired: bool,
        suspended: bool,
        live: &Live,
        writes: &mut Writes,
    ) -> Kept {
        let own = &self.identity.trust_domain;
        let former = live.git_sync.as_ref().map(status_of).unwrap_or_default();
        let mut memory = former.server.as_ref().map(Memory::from).unwrap_or_default();
        let mut wanted = Wanted::of(declarations, own).filter(|_| !retired);
        if suspended || (wanted.is_none() && memory.installation.is_none()) {
            return Kept {
                told: report::Server {
                    memory,
                    conditions: None,
                    done: Vec::new(),
                },
                watched: Vec::new(),
            };
        }
        let annotations = live
            .git_sync
            .as_ref()
            .map(|it| &it["metadata"]["annotations"]);
        memory.resume(annotations.and_then(|it| it[RESUME].as_str()));
        if let Some(wanted) = wanted.as_mut().filter(|wanted| wanted.needs_tls_route()) {
            match self.cluster.preferred(TLS_ROUTE).await {
                Ok(found) => wanted.tls_route = found,
                Err(error) => return unreadable(memory, Vec::new(), &error, writes),
            }
        }
        let (references, read) = self.read_server(wanted.as_ref(), &memory).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => return unreadable(memory, references, &error, writes),
        };
        let endpoint = declarations.trust_domains.get(own);
        let endpoint = endpoint.and_then(|spec| spec.bundle_endpoint.served());
        let decision = server::decide(&Facts {
            wanted: wanted.as_ref(),
            live: &read,
            memory: &memory,
            accept_data_loss: endpoint.is_some_and(|it| it.accept_data_loss),
            now: inputs.now,
        });
        // Before anything is written, it is on record that it may be.
        if !decision.steps.is_empty()
            && let Err(error) = self.record_server(&decision.memory).await
        {
            return unreadable(memory, references, &error, writes);
        }
        Kept {
            told: self.carry_out(decision, writes).await,
            watched: references,
        }
    }

    /// Reads what a decision needs, and what that in turn asks for.
    async fn read_server(
        &self,
        wanted: Option<&Wanted>,
        memory: &Memory,
    ) -> (Vec<ObjectRef>, Result<server::Live, cluster::Error>) {
        let mut read = server::Live::default();
        let mut references = Vec::new();
        loop {
            let mut asked = server::reads(wanted, memory, &read);
            asked.retain(|reference| !references.contains(reference));
            if asked.is_empty() {
                return (references, Ok(read));
            }
            let result = self.read_objects(&asked, &mut read).await;
            references.extend(asked);
            if let Err(error) = result {
                return (references, Err(error));
            }
        }
    }

    /// Reads objects of the server. Of its pods only more is known by them.
    async fn read_objects(
        &self,
        references: &[ObjectRef],
        read: &mut server::Live,
    ) -> Result<(), cluster::Error> {
        let mut reads = Vec::new();
        for reference in references {
            reads.push(async move { (reference, self.cluster.get(reference).await) });
        }
        let found: Vec<_> = stream::iter(reads)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (reference, result) in found {
            match result {
                Ok(Some(object)) => read.insert(reference, object),
                Ok(None) => {}
                Err(cluster::Error::UnknownKind(gvk)) => read.lacks(&gvk),
                Err(error) if reference.gvk.kind == "Pod" => {
                    tracing::debug!(%reference, error = %with_causes(&error), "not read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is to be remembered, and nothing else, into the status of the `GitSync`.
    async fn record_server(&self, memory: &Memory) -> Result<(), cluster::Error> {
        let reference = types::git_sync_reference();
        let standing = self.cluster.get(&reference).await?.unwrap_or_default();
        let mut status = status_of(&standing);
        let recorded = memory.into();
        if status.server.as_ref() == Some(&recorded) {
            return Ok(());
        }
        status.server = Some(recorded);
        let object = serde_json::json!({
            "apiVersion": reference.gvk.api_version(), "kind": reference.gvk.kind,
            "metadata": {"name": reference.name},
            "status": serde_json::to_value(&status).unwrap_or_default(),
        });
        self.cluster.apply_status(&object).await?;
        Ok(())
    }

    async fn carry_out(&self, decision: Decision, writes: &mut Writes) -> report::Server {
        let Decision {
            mut memory,
            steps,
            mut conditions,
        } = decision;
        let mut failed: BTreeSet<Piece> = BTreeSet::new();
        let mut done = Vec::new();
        for step in steps {
            if step.follows().is_some_and(|piece| failed.contains(&piece)) {
                continue;
            }
            match self.write(&step).await {
                Ok(()) => {
                    tracing::info!(piece = %step.piece, restarts = step.restarts, "the agent {}", step.why);
                    writes.made += 1;
                    if let Some(asked) = step.asked {
                        memory.wrote(step.piece, asked, step.undone);
                    }
                    done.push((step.restarts, step.why));
                }
                Err(error) => {
                    failed.insert(step.piece);
                    let text = with_causes(&error);
                    tracing::warn!(piece = %step.piece, error = text, "not written");
                    // Somebody else wrote it meanwhile: it is read again.
                    if error.is_outdated() {
                        writes.retry = true;
                    } else {
                        writes.failed(&error);
                    }
                    let kind = step.piece.condition();
                    conditions.retain(|condition| condition.kind != kind);
                    conditions.push(Condition::new(kind, false, "WriteFailed", text));
                }
            }
        }
        report::Server {
            memory,
            conditions: Some(conditions),
            done,
        }
    }

    async fn write(&self, step: &Step) -> Result<(), cluster::Error> {
        match &step.write {
            Write::Edit { reference, patch } => {
                self.cluster.edit(reference, patch).await?;
            }
            Write::Apply(object) => {
                self.cluster
                    .apply(object, Conflicts::Take, Mode::Persist)
                    .await?;
            }
            Write::Delete(live) => self.cluster.delete(live).await?,
        }
        Ok(())
    }
}

/// The server's objects can't be looked at: nothing is concluded from that.
fn unreadable(
    memory: Memory,
    watched: Vec<ObjectRef>,
    error: &cluster::Error,
    writes: &mut Writes,
) -> Kept {
    writes.retry |= error.is_retryable();
    let message = format!(
        "{}; the rights for it are in deploy/server-management",
        with_causes(error)
    );
    let condition = Condition::new(SERVER_CONFIGURED, None, "Unreadable", message);
    Kept {
        told: report::Server {
            memory,
            conditions: Some(vec![condition]),
            done: Vec::new(),
        },
        watched,
    }
}
