//! The control groups of a node: one in each hierarchy of version 1, below this process's own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::reaper::Reaper;

/// Where hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A group in each hierarchy; the watchdog removes them.
pub(super) struct ControlGroups {
    groups: Vec<(Hierarchy, PathBuf)>,
}

/// A hierarchy, as `/proc/self/cgroup` lists it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// `memory`, or several with commas, or `name=systemd`.
    controllers: String,
    /// The group that this process is in.
    own: String,
}

impl ControlGroups {
    /// Makes them. The name must be one that nobody else has.
    pub(super) fn create(reaper: &Reaper, name: &str) -> anyhow::Result<Self> {
        let listed = std::fs::read_to_string("/proc/self/cgroup").context("read own groups")?;
        let mut groups = Vec::new();
        for hierarchy in hierarchies(&listed) {
            let parent = hierarchy.directory();
            let group = parent.join(name);
            reaper.remove_cgroup(&group)?;
            std::fs::create_dir(&group)
                .with_context(|| format!("cannot make the control group {}", group.display()))?;
            // A group without processors and memory can't have processes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read(parent.join(file)) {
                    std::fs::write(group.join(file), value)
                        .with_context(|| format!("cannot set {file} of {}", group.display()))?;
                }
            }
            groups.push((hierarchy, group));
        }
        Ok(Self { groups })
    }

    /// The groups' directories: whoever writes its process id into `cgroup.procs` of all of them is in the node's
    /// groups.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|(_, group)| group.as_path())
    }

    /// The hierarchies to mount on the node: `memory`, `name=systemd`.
    pub(super) fn hierarchies(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter();
        groups.map(|(hierarchy, _)| hierarchy.controllers.as_str())
    }
}

impl Hierarchy {
    /// The directory of this process's group.
    fn directory(&self) -> PathBuf {
        let mount = self.controllers.strip_prefix("name=");
        let mount = mount.unwrap_or(&self.controllers);
        Path::new(ROOT)
            .join(mount)
            .join(self.own.trim_start_matches('/'))
    }
}

fn hierarchies(listed: &str) -> Vec<Hierarchy> {
    let lines = listed.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, own) = (fields.next()?, fields.next()?, fields.next()?);
        // The empty one is version 2.
        (!controllers.is_empty()).then(|| Hierarchy {
            controllers: controllers.to_owned(),
            own: own.to_owned(),
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::hierarchies;

    #[test]
    fn the_own_groups_are_found() {
        let listed = "4:memory:/a/b\n3:name=systemd:/\n2:cpu,cpuacct:/a:b\n0::/\n";
        let directories: Vec<PathBuf> = hierarchies(listed)
            .iter()
            .map(super::Hierarchy::directory)
            .collect();
        assert_eq!(
            directories,
            [
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup/systemd/",
                "/sys/fs/cgroup/cpu,cpuacct/a:b",
            ]
            .map(PathBuf::from)
        );
    }
}
