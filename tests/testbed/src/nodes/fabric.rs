//! The network between the nodes: a namespace with a bridge, and no way out.
//!
//! Nothing has a name that outlives it: the namespace is held by a process, a node's by the node's first one, and
//! the kernel removes a cable with either of its ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::forward::Side;
use super::plan::{Addresses, OUTSIDE};
use super::requirements::SEARCH_PATH;
use crate::process::{Process, Program, run_with_input};
use crate::reaper::Reaper;

/// A bridge, and what stands outside of the clusters: the test, and the servers that it runs.
pub struct Fabric {
    holder: Process,
    inside: Side,
    outside: Side,
    nodes: Vec<Addresses>,
    reaper: Arc<Reaper>,
}

impl Fabric {
    /// A network that so many nodes can be attached to; `pause` is a program that does nothing.
    pub(super) async fn start(
        reaper: &Arc<Reaper>,
        pause: &Path,
        nodes: usize,
    ) -> anyhow::Result<Self> {
        let holder = Process::start(
            reaper,
            &Program {
                name: "the network".to_owned(),
                path: "/usr/bin/unshare".into(),
                arguments: vec!["--net".into(), pause.into()],
                environment: Vec::new(),
                directory: reaper.directory().to_owned(),
                log: reaper.directory().join("network.log"),
            },
        )?;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let path = format!("/proc/{}/ns/net", holder.id());
        holder
            .until_ready(Duration::from_secs(20), async || {
                Ok((std::fs::read_link(&path)? != own).then_some(()))
            })
            .await?;
        let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let fabric = Self {
            inside: Side::start(Some(namespace))?,
            outside: Side::start(None)?,
            nodes: (0..nodes)
                .map(Addresses::new)
                .collect::<anyhow::Result<_>>()?,
            holder,
            reaper: Arc::clone(reaper),
        };
        let mut setup = format!(
            "link set lo up\n\
             link add bridge type bridge\n\
             addr add {OUTSIDE}/24 dev bridge\n\
             link set bridge up\n"
        );
        setup.extend(fabric.nodes.iter().map(|node| route_to_pods(*node)));
        fabric.ip(fabric.holder.id(), &setup).await?;
        Ok(fabric)
    }

    /// Gives the network namespace of a process a cable to the bridge.
    pub(super) async fn attach(&self, node: Addresses, process: u32) -> anyhow::Result<()> {
        let cable = node.cable();
        let setup = format!(
            "link add {cable} type veth peer name eth0 netns {process}\n\
             link set {cable} master bridge up\n"
        );
        self.ip(self.holder.id(), &setup).await?;
        let mut setup = format!(
            "link set lo up\n\
             addr add {}/24 dev eth0\n\
             link set eth0 up\n\
             route add default via {OUTSIDE}\n",
            node.node()
        );
        let others = self.nodes.iter().filter(|other| **other != node);
        setup.extend(others.map(|other| route_to_pods(*other)));
        self.ip(process, &setup).await
    }

    /// Cuts a node off, or lets it back.
    pub(super) async fn connect(&self, node: Addresses, connected: bool) -> anyhow::Result<()> {
        let state = if connected { "up" } else { "down" };
        let change = format!("link set {} {state}\n", node.cable());
        self.ip(self.holder.id(), &change).await
    }

    /// Makes an address inside reachable from this process; returns the port on 127.0.0.1.
    pub async fn reach(&self, address: Ipv4Addr, port: u16) -> anyhow::Result<u16> {
        let listener = self.outside.listen(Ipv4Addr::LOCALHOST, 0).await?;
        let near = listener.local_addr()?.port();
        self.inside
            .serve(listener, SocketAddr::from((address, port)));
        Ok(near)
    }

    /// Makes a port on this process's 127.0.0.1 reachable from inside, at the address that stands outside of all
    /// clusters.
    pub(super) async fn offer(&self, port: u16, near: u16) -> anyhow::Result<()> {
        let listener = self.inside.listen(OUTSIDE, port).await?;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, near));
        self.outside.serve(listener, target);
        Ok(())
    }

    /// Whether somebody listens at an address inside.
    pub async fn probe(&self, address: Ipv4Addr, port: u16) -> anyhow::Result<()> {
        self.inside.connect(SocketAddr::from((address, port))).await
    }

    /// Runs commands of `ip` in the network namespace of a process.
    async fn ip(&self, process: u32, commands: &str) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new("nsenter");
        command
            .env("PATH", SEARCH_PATH)
            .arg(format!("--net=/proc/{process}/ns/net"))
            .args(["ip", "-batch", "-"]);
        run_with_input(&self.reaper, command, commands.as_bytes().to_vec()).await?;
        Ok(())
    }
}

fn route_to_pods(node: Addresses) -> String {
    format!("route add {} via {}\n", node.pods(), node.node())
}
