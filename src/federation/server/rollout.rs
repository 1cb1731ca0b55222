//! The `StatefulSet`: the endpoint's port, and the restart that a new configuration needs.
