//! The images that every node has before its kubelet starts: nothing can be pulled here.

use std::path::{Path, PathBuf};

use crate::SpireVersion;
use crate::binaries::{Binaries, NodeBinaries};
use crate::image::{Architecture, Image, Tree, with_program};

/// What holds the namespaces of a pod.
pub(super) const PAUSE: &str = "testbed.local/pause:1";

/// The cluster's DNS.
pub(super) const COREDNS: &str = "testbed.local/coredns:1";

/// spire-controller-manager.
pub(super) const CONTROLLER_MANAGER: &str = "testbed.local/spire-controller-manager:1";

/// The image of one of SPIRE's programs, `spire-server` or `spire-agent`.
pub(super) fn spire_image(program: &str, version: SpireVersion) -> String {
    format!("testbed.local/{program}:{version}")
}

/// Where a program of SPIRE lies in its image, as in upstream's.
pub(super) fn spire_path(program: &str) -> String {
    format!("/opt/spire/bin/{program}")
}

/// Archives of images, written as they are asked for.
pub(super) struct Images<'a> {
    binaries: &'a Binaries,
    node_binaries: &'a NodeBinaries,
    directory: PathBuf,
}

impl<'a> Images<'a> {
    /// Nothing is written yet.
    pub(super) fn new(
        binaries: &'a Binaries,
        node_binaries: &'a NodeBinaries,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            binaries,
            node_binaries,
            directory: directory.to_owned(),
        })
    }

    /// What a node needs that runs this SPIRE.
    pub(super) fn of_node(&self, spire: SpireVersion) -> anyhow::Result<Vec<PathBuf>> {
        let mut archives = vec![
            self.write(PAUSE, "/pause", &self.node_binaries.pause(), &[])?,
            self.write(COREDNS, "/coredns", &self.node_binaries.coredns(), &[])?,
            self.write(
                CONTROLLER_MANAGER,
                "/spire-controller-manager",
                &self.binaries.spire_controller_manager(),
                &[],
            )?,
        ];
        for program in ["spire-server", "spire-agent"] {
            let source = self.binaries.spire(spire)?.join(program);
            let name = spire_image(program, spire);
            archives.push(self.write(&name, &spire_path(program), &source, &["run"])?);
        }
        Ok(archives)
    }

    /// An image of one program.
    fn write(
        &self,
        name: &str,
        path: &str,
        program: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<PathBuf> {
        let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-");
        let archive = self.directory.join(format!("{file}.tar"));
        if archive.is_file() {
            return Ok(archive);
        }
        let mut entrypoint = vec![path.to_owned()];
        entrypoint.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let image = Image {
            reference: name.to_owned(),
            entrypoint,
            environment: vec!["PATH=/opt/spire/bin:/bin".to_owned()],
            ..Image::default()
        };
        let tree = with_program(Tree::base(), path, program)?;
        image.write(&[(Architecture::OWN, tree)].into(), &archive)?;
        Ok(archive)
    }
}
