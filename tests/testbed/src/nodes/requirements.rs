//! What a machine needs to run nodes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Where a node's programs look for others: what is on the user's search path does not matter there.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs of the machine that nodes use, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
];

/// Capabilities by their number in the kernel's bit set.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Says what is missing, all at once and before anything is built.
pub(super) fn check() -> anyhow::Result<()> {
    let status = read("/proc/self/status")?;
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("to be run by root".to_owned());
    }
    for capability in capabilities_missing(&status)? {
        missing.push(format!("the capability {capability}"));
    }
    let packages = packages_missing(SEARCH_PATH);
    if !packages.is_empty() {
        missing.push(format!("`apt-get install {}`", packages.join(" ")));
    }
    if !Path::new("/sys/fs/cgroup/memory/cgroup.procs").is_file() {
        missing.push(
            "control groups of version 1 at /sys/fs/cgroup (kernel argument \
             systemd.unified_cgroup_hierarchy=0)"
                .to_owned(),
        );
    }
    if !has_bridge_filter() {
        missing.push("the kernel module br_netfilter (`modprobe br_netfilter`)".to_owned());
    }
    if !missing.is_empty() {
        bail!(
            "real nodes are made of the kernel's namespaces, which needs {}",
            missing.join("; ")
        );
    }
    Ok(())
}

/// Services are reachable from pods next to the one that they lead to only if the kernel filters bridges.
fn has_bridge_filter() -> bool {
    let exists = || Path::new("/proc/sys/net/bridge").is_dir();
    // It may be there to be loaded.
    exists()
        || Command::new("modprobe")
            .arg("br_netfilter")
            .output()
            .is_ok_and(|_| exists())
}

fn capabilities_missing(status: &str) -> anyhow::Result<Vec<&'static str>> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("/proc/self/status has no CapEff")?;
    let effective = u64::from_str_radix(effective.trim(), 16).context("CapEff is no number")?;
    let missing = CAPABILITIES
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0);
    Ok(missing.map(|(name, _)| *name).collect())
}

fn packages_missing(search_path: &str) -> Vec<&'static str> {
    let found = |program: &str| {
        std::env::split_paths(search_path).any(|directory| directory.join(program).is_file())
    };
    let missing = PROGRAMS.iter().filter(|(program, _)| !found(program));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::{capabilities_missing, packages_missing};

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            packages_missing("/nonexistent"),
            ["runc", "iproute2", "nftables", "util-linux", "mount"]
        );
        let missing = |bits| capabilities_missing(&format!("Name:\tx\nCapEff:\t{bits}\n")).unwrap();
        assert_eq!(missing("0000000000201000"), [""; 0]);
        assert_eq!(missing("0000000000001000"), ["CAP_SYS_ADMIN"]);
        assert_eq!(
            missing("0000000000000000"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
    }
}
