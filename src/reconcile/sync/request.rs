//! A pass that somebody asked for looks at the remote itself: who waits for it just pushed.

use serde_json::Value;

use super::{Inputs, Sync, facts::Live};
use crate::{
    cluster::{
        Cluster,
        types::{GitSyncStatus, REQUESTED_AT},
    },
    git::{Heads, Repository},
    model::diagnostic::with_causes,
};

/// What a look at the remote brought, if there was one.
pub(super) struct Looked(Option<Result<Heads, String>>);

impl Looked {
    /// What a pass is given, with what was seen in place of what was known.
    pub(super) fn inputs<'a>(&'a self, known: &Inputs<'a>) -> Inputs<'a> {
        let known = known.clone();
        match &self.0 {
            None => known,
            Some(Ok(heads)) => Inputs {
                heads,
                fetch_failure: None,
                ..known
            },
            Some(Err(failure)) => Inputs {
                fetch_failure: Some(failure),
                ..known
            },
        }
    }
}

/// The request that stands on a `GitSync`.
pub(super) fn of(git_sync: Option<&Value>) -> Option<String> {
    let annotations = &git_sync?["metadata"]["annotations"];
    annotations[REQUESTED_AT].as_str().map(str::to_owned)
}

impl<R: Repository, C: Cluster> Sync<R, C> {
    /// Looks at the remote, if there is a request that no pass was made for yet.
    pub(super) async fn look_if_requested(&self, live: &Live, inputs: &Inputs<'_>) -> Looked {
        let git_sync = live.git_sync.as_ref();
        let requested = of(git_sync);
        if requested.is_none() || requested == GitSyncStatus::of(git_sync).handled_request {
            return Looked(None);
        }
        tracing::info!(request = requested, "somebody asked for a pass");
        let fetched = self.repository.fetch().await;
        if let (Err(error), None) = (&fetched, inputs.fetch_failure) {
            tracing::warn!(error = %with_causes(error), "the remote can't be read");
        }
        Looked(Some(fetched.map_err(|error| with_causes(&error))))
    }
}
