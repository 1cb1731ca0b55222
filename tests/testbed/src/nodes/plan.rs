//! Which addresses there are. Every testbed has a network of its own, so they are the same in all of them.

use std::net::Ipv4Addr;

/// The name of the zone of the testbed's own names.
pub(super) const ZONE: &str = "testbed";

/// The machine outside of all clusters: the fabric's own address.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

/// So many nodes have addresses.
pub(super) const NODES: usize = 50;

/// The addresses of one cluster, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    number: u8,
}

impl Addresses {
    /// Of a cluster that is not beyond [`NODES`].
    pub(super) fn new(position: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(position < NODES, "there are addresses for {NODES} nodes");
        Ok(Self {
            number: u8::try_from(position)?,
        })
    }

    /// The node.
    pub(super) fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, 0, 10 + self.number)
    }

    /// All pods, as a prefix.
    pub(super) fn pods(self) -> String {
        format!("10.{}.0.0/24", 100 + self.number)
    }

    /// The node, as its pods see it.
    pub(super) fn pod_gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 100 + self.number, 0, 1)
    }

    /// All Services, as a prefix.
    pub(super) fn services(self) -> String {
        format!("10.{}.0.0/16", 150 + self.number)
    }

    /// The Service `kubernetes`: the API server takes the first address.
    pub(super) fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 150 + self.number, 0, 1)
    }

    /// The Service of the cluster's DNS.
    pub(super) fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 150 + self.number, 0, 10)
    }

    /// The name of the node's end in the fabric.
    pub(super) fn cable(self) -> String {
        format!("node{}", self.number)
    }
}
