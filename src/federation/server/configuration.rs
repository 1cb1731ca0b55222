//! The `ConfigMap` with the server's configuration: when it is written, and what it remembers.
