//! The SPIRE server of the cluster: what is decided about it is carried out.
//!
//! It comes last in a pass, and what goes wrong here is told and stops nothing else.

use std::collections::BTreeSet;

use super::{Inputs, Sync, Writes, facts::Live};
use crate::{
    cluster::{
        self, Cluster, Conflicts, Mode,
        types::{self, GitSyncStatus},
    },
    federation::{
        conditions::Condition,
        server::{Decision, Memory, Piece, SERVER_CONFIGURED, Step, Write},
    },
    git::Repository,
    model::{declarations::Declarations, diagnostic::with_causes, manifest::ObjectRef},
    reconcile::{
        report,
        server::{self, Examined, Unreadable},
    },
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
        let git_sync = live.git_sync.as_ref();
        let own = (!retired).then_some(&self.identity.trust_domain);
        let examined = if suspended {
            Ok(None)
        } else {
            let cluster = self.cluster.as_ref();
            server::examine(cluster, declarations, own, git_sync, inputs.now).await
        };
        let unreadable = match examined {
            Ok(None) => {
                let told = report::Server {
                    memory: server::remembered(git_sync),
                    ..report::Server::default()
                };
                return Kept {
                    told,
                    ..Kept::default()
                };
            }
            Ok(Some(Examined {
                references,
                decision,
                ..
            })) => {
                // Before anything is written, it is on record that it may be.
                let recorded = match decision.steps.as_slice() {
                    [] => Ok(()),
                    _ => self.record_server(&decision.memory).await,
                };
                match recorded {
                    Ok(()) => {
                        return Kept {
                            told: self.carry_out(decision, writes).await,
                            watched: references,
                        };
                    }
                    Err(error) => Unreadable {
                        memory: server::remembered(git_sync),
                        references,
                        error,
                    },
                }
            }
            Err(unreadable) => *unreadable,
        };
        // Nothing is concluded from what can't be read.
        writes.retry |= unreadable.error.is_retryable();
        let message = format!(
            "{}; the rights for it are in deploy/server-management",
            with_causes(&unreadable.error)
        );
        let condition = Condition::new(SERVER_CONFIGURED, None, "Unreadable", message);
        Kept {
            told: report::Server {
                memory: unreadable.memory,
                conditions: Some(vec![condition]),
                done: Vec::new(),
            },
            watched: unreadable.references,
        }
    }

    /// Writes what is to be remembered, and nothing else, into the status of the `GitSync`.
    async fn record_server(&self, memory: &Memory) -> Result<(), cluster::Error> {
        let reference = types::git_sync_reference();
        let standing = self.cluster.get(&reference).await?.unwrap_or_default();
        let mut status = GitSyncStatus::of(Some(&standing));
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
