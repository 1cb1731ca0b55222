//! Events in the cluster.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

use super::{Happening, KubeCluster, Severity};

/// The longest note that an event may have, in bytes (events.k8s.io/v1).
const NOTE_BYTES: usize = 1024;

impl KubeCluster {
    pub(super) async fn record(&self, happening: Happening) {
        let text = |pointer: &str| {
            happening
                .regarding
                .pointer(pointer)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        let regarding = ObjectReference {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            ..ObjectReference::default()
        };
        let mut note = happening.note;
        while note.len() > NOTE_BYTES {
            note.pop();
        }
        let event = Event {
            type_: match happening.severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: happening.reason,
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &regarding).await {
            tracing::debug!(%error, reason = event.reason, "an event could not be recorded");
        }
    }
}
