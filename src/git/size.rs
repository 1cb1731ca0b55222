//! How much room the mirror takes.

use std::{fs, path::Path};

/// What a mirror may grow by, in bytes, before it is made anew.
const GROWTH: u64 = 64 << 20;

/// A directory's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Size {
    /// Of everything below a directory; what can't be read counts for nothing.
    pub(super) fn of(directory: &Path) -> Self {
        let mut size = Self::default();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => {
                    let below = Self::of(&entry.path());
                    size.files += below.files;
                    size.bytes += below.bytes;
                }
                Ok(found) => {
                    size.files += 1;
                    size.bytes += found.len();
                }
                Err(_) => {}
            }
        }
        size
    }

    /// Whether a mirror that was once this large should be made anew: it has twice as many bytes and
    /// [`GROWTH`] more, or so many files more.
    pub(super) fn has_grown(self, first: Self, files: usize) -> bool {
        self.files > first.files + files
            || self.bytes > first.bytes.saturating_mul(2) && self.bytes - first.bytes > GROWTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_counts() {
        let size = |files, bytes| Size { files, bytes };
        let first = size(20, 200 << 20);
        for (now, grown) in [
            (first, false),
            (size(1020, 200 << 20), false),
            (size(1021, 200 << 20), true),
            (size(20, 400 << 20), false),
            (size(20, 401 << 20), true),
            (size(5, 1 << 20), false),
        ] {
            assert_eq!(now.has_grown(first, 1000), grown, "{now:?}");
        }
        assert!(!size(20, 60 << 20).has_grown(size(20, 1 << 20), 1000));
    }

    #[test]
    fn everything_below_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), "12345").unwrap();
        fs::write(directory.path().join("c"), "1").unwrap();
        assert_eq!(Size::of(directory.path()), Size { files: 2, bytes: 6 });
        assert_eq!(Size::of(Path::new("/nowhere")), Size::default());
    }
}
