//! What a restart of the server would lose: a datastore or keys that live no longer than a pod.
