//! Writes the published images and their bills of materials: `make image`.

#![expect(clippy::print_stdout, reason = "what was written is what is asked for")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use trustweave_packaging::product::{EXAMPLE_WORKLOADS, Product, TRUSTWEAVE, VERSION};
use trustweave_packaging::{program, sbom};

const USAGE: &str = "usage: image OUTPUT DIRECTORY...

Writes the images of statically linked programs to the directory OUTPUT, with a bill of materials for each. Each
further DIRECTORY holds the programs of one architecture; an image has all architectures that are given.";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [output, directories @ ..] = arguments.as_slice() else {
        bail!(USAGE);
    };
    ensure!(!directories.is_empty(), USAGE);
    std::fs::create_dir_all(output)
        .with_context(|| format!("make the directory {}", output.display()))?;
    for product in [TRUSTWEAVE, EXAMPLE_WORKLOADS] {
        write(product, directories, output)?;
    }
    Ok(())
}

fn write(product: Product, directories: &[PathBuf], output: &Path) -> anyhow::Result<()> {
    let mut platforms = BTreeMap::new();
    for directory in directories {
        let path = directory.join(product.program);
        let architecture = program::architecture(&path)?;
        let other = platforms.insert(architecture, product.tree(&path));
        ensure!(
            other.is_none(),
            "{}: there is another {architecture}",
            path.display()
        );
    }
    let archive = output.join(format!("{}-{VERSION}.tar", product.name));
    let digest = product
        .image()
        .write(&platforms, &archive)
        .with_context(|| format!("write {}", archive.display()))?;
    tell(&archive, &format!("{} {digest}", product.reference()))?;

    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for architecture in platforms.keys() {
        let bill = sbom::bill_of_materials(&workspace, product.package, architecture.target())?;
        let path = output.join(format!(
            "{}-{VERSION}-{architecture}.cdx.json",
            product.name
        ));
        std::fs::write(&path, format!("{bill:#}\n"))
            .with_context(|| format!("write {}", path.display()))?;
        let components = bill["components"].as_array().map_or(0, Vec::len);
        tell(&path, &format!("{components} components"))?;
    }
    Ok(())
}

fn tell(path: &Path, what: &str) -> anyhow::Result<()> {
    let tenths = std::fs::metadata(path)?.len() * 10 / (1024 * 1024);
    println!(
        "{} {}.{} MiB {what}",
        path.display(),
        tenths / 10,
        tenths % 10
    );
    Ok(())
}
