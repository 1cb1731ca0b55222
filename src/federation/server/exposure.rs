//! The Service of the endpoint, and what exposes it outside the cluster.
