//! Real Kubernetes control planes, SPIRE and git servers on loopback, for Trustweave's tests and demo.
