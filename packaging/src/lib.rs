//! Container images without a container engine: from files on disk to an archive that every engine reads.
//!
//! The same files give the same bytes: entries are sorted, nothing has a time or an owner, and nothing is compressed
//! (who pushes an image compresses it).

pub mod image;
pub mod product;
pub mod program;
pub mod sbom;
pub mod tree;

pub use crate::image::{Architecture, Image};
pub use crate::tree::Tree;
