//! The files of an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tar::{Builder, EntryType, Header};

/// Where programs look for the authorities of the public web.
pub const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the C library reads how names are resolved.
pub const NAME_SERVICES: &str = "/etc/nsswitch.conf";

/// Files by their absolute path; all are root's, and none has a time.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// By path without the leading slash, so that a directory comes before what is in it.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory { mode: u32 },
    Bytes { content: Vec<u8>, mode: u32 },
    File { source: PathBuf, mode: u32 },
    Link { target: String },
}

impl Tree {
    /// What programs expect of any system: `/tmp`, how names are resolved, and the authorities of the public web as
    /// Mozilla has them.
    pub fn base() -> Self {
        Self::default()
            .directory("/tmp", 0o1777)
            // Without the file the C library asks DNS first, and does not know the names of /etc/hosts.
            .text(NAME_SERVICES, "hosts: files dns\n")
            .text(CA_CERTIFICATES, ca_certificates())
    }

    /// Adds a directory. Directories on the way to a file need not be added, unless their mode is not 755.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.insert(path, Entry::Directory { mode });
        self
    }

    /// Adds a file with this content, mode 644.
    #[must_use]
    pub fn text(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        let mode = 0o644;
        self.insert(path, Entry::Bytes { content, mode });
        self
    }

    /// Adds a file that is read when the image is written.
    #[must_use]
    pub fn file(mut self, path: &str, source: impl Into<PathBuf>, mode: u32) -> Self {
        let source = source.into();
        self.insert(path, Entry::File { source, mode });
        self
    }

    /// Adds a program: a file with mode 755.
    #[must_use]
    pub fn program(self, path: &str, source: impl Into<PathBuf>) -> Self {
        self.file(path, source, 0o755)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let target = target.to_owned();
        self.insert(path, Entry::Link { target });
        self
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let parent = path[..end].to_owned();
            let directory = Entry::Directory { mode: 0o755 };
            self.entries.entry(parent).or_insert(directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes it as a tar archive.
    pub(crate) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(out);
        for (path, entry) in &self.entries {
            entry
                .write(&mut archive, path)
                .map_err(|error| named(&error, &format!("add /{path} to an image")))?;
        }
        archive.into_inner()?.flush()
    }
}

impl Entry {
    fn write(&self, archive: &mut Builder<impl Write>, path: &str) -> io::Result<()> {
        match self {
            Self::Directory { mode } => {
                let mut header = header(EntryType::Directory, *mode, 0);
                archive.append_data(&mut header, path, io::empty())
            }
            Self::Bytes { content, mode } => {
                let mut header = header(EntryType::Regular, *mode, content.len() as u64);
                archive.append_data(&mut header, path, content.as_slice())
            }
            Self::File { source, mode } => {
                let file = File::open(source)
                    .map_err(|error| named(&error, &format!("open {}", source.display())))?;
                let size = file.metadata()?.len();
                let mut header = header(EntryType::Regular, *mode, size);
                archive.append_data(&mut header, path, file.take(size))
            }
            Self::Link { target } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                archive.append_link(&mut header, path, target)
            }
        }
    }
}

fn named(error: &io::Error, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}

/// A header that says nothing of who packed it, and when.
pub(crate) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Mozilla's authorities in PEM.
fn ca_certificates() -> String {
    let mut text = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = BASE64_STANDARD.encode(certificate);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(64));
            text += line;
            text.push('\n');
            rest = behind;
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}
