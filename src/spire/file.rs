//! The own bundle from a file that something else writes into the agent's container.
//!
//! It is read again every two seconds and compared: that costs nothing, and needs no events, which
//! network file systems do not give.

use std::{
    fs,
    io::{self, Read as _},
    time::Duration,
};

use super::{BundleSource, Error, polled::Last};
use crate::model::{
    bundle::{Bundle, MAX_BUNDLE_BYTES},
    declaration::FileSource,
};

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// The file.
pub struct File {
    path: String,
    last: Last,
}

impl File {
    /// The file that the source names.
    pub fn new(source: &FileSource) -> Self {
        Self {
            path: source.path.clone(),
            last: Last::default(),
        }
    }

    async fn read(&self) -> Result<Bundle, Error> {
        let path = self.path.clone();
        // A mounted file may be on a slow file system.
        let reading = tokio::task::spawn_blocking(move || content(&path));
        let content = reading
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        let content = content.map_err(|source| Error::File {
            path: self.path.clone(),
            source,
        })?;
        Bundle::parse(&content).map_err(|source| Error::NotABundle {
            place: format!("the file {}", self.path),
            source,
        })
    }
}

/// What the file holds, up to one byte more than a bundle may have, so that it is seen to be too large.
fn content(path: &str) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    // A device or a pipe could go on for ever.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_BUNDLE_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}

impl BundleSource for File {
    async fn current(&self) -> Result<Bundle, Error> {
        self.last.noted(self.read().await)
    }

    async fn changed(&self) {
        self.last.until_other(INTERVAL, || self.read()).await;
    }

    fn describe(&self) -> String {
        format!("file {}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::sample;

    #[tokio::test]
    async fn what_is_written_there_is_noticed_and_what_is_no_bundle_is_refused() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("bundle.json");
        let source = File::new(&FileSource {
            path: path.display().to_string(),
        });
        let missing = source.current().await.unwrap_err();
        assert!(matches!(missing, Error::File { .. }), "{missing}");

        let (first, second) = (sample("a.test"), sample("a.test"));
        std::fs::write(&path, first.canonical()).unwrap();
        source.changed().await;
        assert_eq!(source.current().await.unwrap(), first);
        std::fs::write(&path, second.canonical()).unwrap();
        source.changed().await;
        assert_eq!(source.current().await.unwrap(), second);

        std::fs::write(&path, "token-of-somebody").unwrap();
        source.changed().await;
        let refused = crate::model::diagnostic::with_causes(&source.current().await.unwrap_err());
        assert!(refused.contains("holds no SPIFFE bundle"), "{refused}");
        assert!(!refused.contains("token-of-somebody"), "{refused}");

        let of_directory = File::new(&FileSource {
            path: directory.path().display().to_string(),
        });
        of_directory.current().await.unwrap_err();
    }
}
