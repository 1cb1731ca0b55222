//! What the agent would write so that the SPIRE server is as declared.

use serde_json::Value;

use super::report::{Object, changed};
use crate::{
    cli::{check::now, output},
    cluster::{Cluster as _, Conflicts, KubeCluster, Mode},
    federation::server::Write,
    model::{
        declarations::Declarations, diagnostic::with_causes, manifest::ObjectRef,
        trust_domain::TrustDomain,
    },
    plan::Action,
    reconcile::server::{self, Examined},
};

/// The objects that would be written. What keeps the server from being as declared is told, and what
/// can't be read or is refused is counted.
pub(super) async fn changes(
    cluster: &KubeCluster,
    declarations: &Declarations,
    own: &TrustDomain,
    git_sync: Option<&Value>,
    refused: &mut usize,
) -> Vec<Object> {
    let examined = match server::examine(cluster, declarations, Some(own), git_sync, now()).await {
        Ok(None) => return Vec::new(),
        Ok(Some(examined)) => examined,
        Err(unreadable) => {
            *refused += 1;
            output::note(&format!(
                "the SPIRE server: {}",
                with_causes(&unreadable.error)
            ));
            return Vec::new();
        }
    };
    let conditions = examined.decision.conditions.iter();
    for condition in conditions.filter(|condition| condition.status == Some(false)) {
        output::note(&format!("{}: {}", condition.kind, condition.message));
    }
    let mut objects = Vec::new();
    for step in &examined.decision.steps {
        match outcome(cluster, &examined, &step.write).await {
            Ok(object) => objects.extend(object),
            Err(error) => {
                *refused += 1;
                output::note(&with_causes(&error));
            }
        }
    }
    objects
}

/// What a write would make of its object.
async fn outcome(
    cluster: &KubeCluster,
    examined: &Examined,
    write: &Write,
) -> Result<Option<Object>, crate::cluster::Error> {
    let (reference, after) = match write {
        Write::Edit { reference, patch } => {
            let mut after = examined.live.get(reference).cloned().unwrap_or_default();
            json_patch::merge(&mut after, patch);
            (Some(reference.clone()), Some(after))
        }
        Write::Apply(object) => {
            let after = cluster.apply(object, Conflicts::Take, Mode::DryRun).await?;
            (ObjectRef::of(object), Some(after))
        }
        Write::Delete(live) => (ObjectRef::of(live), None),
    };
    Ok(reference.and_then(|reference| {
        let before = examined.live.get(&reference);
        let action = match (before, &after) {
            (_, None) => Action::Delete,
            (None, _) => Action::Create,
            (Some(_), Some(_)) => Action::Update,
        };
        changed(action, &reference, before, after.as_ref())
    }))
}
