//! Images as the Open Container Initiative lays them out, in one archive: what `ctr images import`,
//! `podman load` and `skopeo copy oci-archive:…` read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use crate::tree::{Tree, header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is called, and how its program is run.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its full name with a tag: `ghcr.io/trustweave/trustweave:0.1.0`.
    pub reference: String,
    /// The program, and arguments that it always gets.
    pub entrypoint: Vec<String>,
    /// Arguments that whoever runs it may replace.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Empty is `/`.
    pub working_directory: String,
    /// User and group by number, `65532:65532`; empty is root.
    pub user: String,
    /// Annotations such as `org.opencontainers.image.version`.
    pub labels: BTreeMap<String, String>,
}

/// What a machine must be to run an image's programs; the system is Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// Rust's `x86_64`.
    Amd64,
    /// Rust's `aarch64`.
    Arm64,
}

impl Architecture {
    /// That of the machine that this was built for.
    pub const OWN: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm64
    } else {
        Self::Amd64
    };

    /// What Rust calls it.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// A part of an image, found by its digest.
enum Blob<'a> {
    Document(Vec<u8>),
    Layer { tree: &'a Tree, size: u64 },
}

impl Image {
    /// Writes the archive: one image whose index names a manifest for each architecture. Returns the digest of the
    /// index, `sha256:…`, by which registries know the image.
    pub fn write(
        &self,
        platforms: &BTreeMap<Architecture, Tree>,
        archive: &Path,
    ) -> io::Result<String> {
        let mut blobs = BTreeMap::new();
        let mut manifests = Vec::new();
        for (architecture, tree) in platforms {
            let mut manifest = self.manifest(&mut blobs, *architecture, tree)?;
            manifest["platform"] = json!({"architecture": architecture.to_string(), "os": "linux"});
            manifests.push(manifest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let mut index = document(&mut blobs, INDEX, &index);
        let tag = self.reference.rsplit_once(':').map_or("latest", |it| it.1);
        index["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let digest = index["digest"].as_str().unwrap_or_default().to_owned();
        let entry = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]});

        // Under another name until it is complete.
        let unfinished = archive.with_extension("tar.unfinished");
        let mut out = Builder::new(BufWriter::new(File::create(&unfinished)?));
        append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut out, "index.json", entry.to_string().as_bytes())?;
        for (digest, blob) in &blobs {
            let path = format!("blobs/sha256/{digest}");
            match blob {
                Blob::Document(bytes) => append(&mut out, &path, bytes)?,
                Blob::Layer { tree, size } => append_layer(&mut out, digest, tree, *size)?,
            }
        }
        out.into_inner()?.into_inner()?.sync_all()?;
        std::fs::rename(&unfinished, archive)?;
        Ok(digest)
    }

    /// Adds what an architecture needs, and returns how the index refers to it.
    fn manifest<'a>(
        &self,
        blobs: &mut BTreeMap<String, Blob<'a>>,
        architecture: Architecture,
        tree: &'a Tree,
    ) -> io::Result<Value> {
        // Layers may be large, so they are never held in memory: written once to learn the digest, once to the archive.
        let (digest, size) = measured(tree, io::sink())?;
        let layer = reference(LAYER, &digest, size);
        blobs.insert(digest, Blob::Layer { tree, size });
        let configuration = json!({
            "architecture": architecture.to_string(),
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "WorkingDir": self.working_directory,
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let configuration = document(blobs, CONFIGURATION, &configuration);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": [layer],
        });
        Ok(document(blobs, MANIFEST, &manifest))
    }
}

/// Adds a document, and returns how others refer to it.
fn document(blobs: &mut BTreeMap<String, Blob<'_>>, kind: &str, content: &Value) -> Value {
    let bytes = content.to_string().into_bytes();
    let digest = base16ct::lower::encode_string(&Sha256::digest(&bytes));
    let reference = reference(kind, &digest, bytes.len() as u64);
    blobs.insert(digest, Blob::Document(bytes));
    reference
}

fn reference(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
}

fn append(out: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, bytes.len() as u64);
    out.append_data(&mut header, path, bytes)
}

fn append_layer(
    out: &mut Builder<impl Write>,
    digest: &str,
    tree: &Tree,
    size: u64,
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, size);
    header.set_path(format!("blobs/sha256/{digest}"))?;
    header.set_cksum();
    let out = out.get_mut();
    out.write_all(header.as_bytes())?;
    // A tar archive is whole blocks: no padding is needed.
    if measured(tree, out)? != (digest.to_owned(), size) {
        return Err(io::Error::other("a file changed while it was packed"));
    }
    Ok(())
}

/// Writes the files, and tells digest and size of what was written.
fn measured(tree: &Tree, out: impl Write) -> io::Result<(String, u64)> {
    let mut measuring = Measuring {
        out,
        digest: Sha256::new(),
        size: 0,
    };
    tree.write(&mut measuring)?;
    let digest = base16ct::lower::encode_string(&measuring.digest.finalize());
    Ok((digest, measuring.size))
}

struct Measuring<W> {
    out: W,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Write for Measuring<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;
    use std::path::Path;

    use serde_json::Value;
    use sha2::{Digest as _, Sha256};

    use super::{Architecture, Image};
    use crate::tree::{CA_CERTIFICATES, Tree};

    fn image() -> Image {
        Image {
            reference: "registry.test/team/program:1.2".to_owned(),
            entrypoint: vec!["/program".to_owned()],
            user: "65532:65532".to_owned(),
            ..Image::default()
        }
    }

    fn tree(directory: &Path) -> Tree {
        let program = directory.join("program");
        fs::write(&program, [7; 1000]).unwrap();
        let deep = format!("/very/{}/deep", "long".repeat(30));
        Tree::base()
            .program("/program", program)
            .text(&deep, "deep")
            .link("/bin/program", "../program")
    }

    /// The files of an archive, in order.
    fn files(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mode = entry.header().mode().unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0, "{path}");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, mode, bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = directory.path().join(name);
            let platforms = [(Architecture::Amd64, tree(directory.path()))].into();
            image().write(&platforms, &path).unwrap();
            fs::read(path).unwrap()
        };
        let first = write("first.tar");
        fs::remove_file(directory.path().join("program")).unwrap();
        assert!(first == write("second.tar"));
    }

    #[test]
    fn every_reference_leads_to_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let tree = tree(directory.path());
        let platforms = [
            (Architecture::Arm64, tree.clone().text("/arm", "")),
            (Architecture::Amd64, tree),
        ];
        let digest = image().write(&platforms.into(), &path).unwrap();
        let archive = files(&fs::read(&path).unwrap());
        let archive: BTreeMap<_, _> = archive.into_iter().map(|it| (it.0, it.2)).collect();
        assert_eq!(archive["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);

        let read = |reference: &Value| {
            let digest = reference["digest"].as_str().unwrap();
            let hex = digest.strip_prefix("sha256:").unwrap();
            let bytes = &archive[&format!("blobs/sha256/{hex}")];
            assert_eq!(base16ct::lower::encode_string(&Sha256::digest(bytes)), hex);
            assert_eq!(reference["size"], bytes.len());
            bytes.clone()
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let entry = &json(&archive["index.json"])["manifests"][0];
        assert_eq!(entry["digest"], digest.as_str());
        let name = &entry["annotations"]["io.containerd.image.name"];
        assert_eq!(name, "registry.test/team/program:1.2");
        assert_eq!(
            entry["annotations"]["org.opencontainers.image.ref.name"],
            "1.2"
        );
        let index = json(&read(entry));
        let manifests = index["manifests"].as_array().unwrap();
        let architectures = manifests.iter().map(|it| &it["platform"]["architecture"]);
        assert_eq!(architectures.collect::<Vec<_>>(), ["amd64", "arm64"]);
        for reference in manifests {
            let manifest = json(&read(reference));
            let configuration = json(&read(&manifest["config"]));
            assert_eq!(
                configuration["architecture"],
                reference["platform"]["architecture"]
            );
            assert_eq!(configuration["config"]["User"], "65532:65532");
            assert_eq!(
                configuration["rootfs"]["diff_ids"][0],
                manifest["layers"][0]["digest"]
            );
            read(&manifest["layers"][0]);
        }
        // Nothing lies around that nothing refers to: the layout, the entry, the index, and three for each platform.
        assert_eq!(archive.len(), 3 + 2 * 3);
    }

    #[test]
    fn a_layer_has_directories_before_files_and_modes_as_asked() {
        let directory = tempfile::tempdir().unwrap();
        let mut layer = Vec::new();
        tree(directory.path()).write(&mut layer).unwrap();
        let files = files(&layer);
        let find = |path: &str| files.iter().find(|it| it.0.trim_end_matches('/') == path);
        for (path, mode) in [("tmp", 0o1777), ("bin", 0o755), ("program", 0o755)] {
            assert_eq!(find(path).unwrap().1, mode, "{path}");
        }
        assert_eq!(find("etc/nsswitch.conf").unwrap().2, b"hosts: files dns\n");
        let deep = format!("very/{}/deep", "long".repeat(30));
        assert_eq!(find(&deep).unwrap().2, b"deep");
        let authorities = &find(CA_CERTIFICATES.trim_start_matches('/')).unwrap().2;
        assert!(authorities.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        let position = |path: &str| {
            files
                .iter()
                .position(|it| it.0.trim_end_matches('/') == path)
        };
        assert!(position("etc") < position("etc/ssl") && position("bin") < position("bin/program"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let platforms = [(
            Architecture::Amd64,
            Tree::default().program("/a", "/no/such/file"),
        )];
        let written = image().write(&platforms.into(), &directory.path().join("image.tar"));
        let error = written.unwrap_err().to_string();
        assert!(
            error.contains("/a") && error.contains("/no/such/file"),
            "{error}"
        );
    }
}
