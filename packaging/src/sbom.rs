//! What a program is built from: a bill of materials as `CycloneDX` has it, from Cargo's own view of the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};

/// The bill of materials of one package's programs, in which test dependencies and other systems' crates have no
/// part. It has no time and no random number, so the same `Cargo.lock` gives the same bytes.
pub fn bill_of_materials(workspace: &Path, package: &str, target: &str) -> anyhow::Result<Value> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", target].map(str::to_owned))
        .exec()
        .context("ask Cargo for the dependencies")?;
    let lock = std::fs::read_to_string(workspace.join("Cargo.lock")).context("read Cargo.lock")?;
    let checksums = checksums(&lock)?;
    let root = metadata
        .workspace_packages()
        .into_iter()
        .find(|candidate| candidate.name == package)
        .with_context(|| format!("the workspace has no package {package}"))?;
    let needed = needed(&metadata, &root.id)?;
    let component = |id: &PackageId| describe(&metadata[id], &checksums);
    let components = needed.keys().filter(|id| **id != root.id).map(component);
    let mut subject = component(&root.id);
    subject["type"] = "application".into();
    let dependencies = needed.iter().map(|(id, on)| {
        let on = on.iter().map(|id| url(&metadata[id]));
        json!({"ref": url(&metadata[id]), "dependsOn": on.collect::<Vec<_>>()})
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components.collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

/// What a package needs to be built and run, and what each of that needs in turn.
fn needed(
    metadata: &Metadata,
    root: &PackageId,
) -> anyhow::Result<BTreeMap<PackageId, BTreeSet<PackageId>>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("Cargo resolved nothing")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut needed = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        if needed.contains_key(&id) {
            continue;
        }
        let node = nodes.get(&id).context("Cargo knows no such package")?;
        let dependencies = node.deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|it| it.kind != DependencyKind::Development)
        });
        let dependencies: BTreeSet<_> = dependencies.map(|it| it.pkg.clone()).collect();
        open.extend(dependencies.iter().cloned());
        needed.insert(id, dependencies);
    }
    Ok(needed)
}

fn describe(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": url(package),
        "name": package.name,
        "version": package.version.to_string(),
        "purl": url(package),
    });
    if let Some(license) = &package.license {
        // Old manifests separate alternatives with a slash.
        let license = license.replace(" / ", " OR ").replace('/', " OR ");
        component["licenses"] = json!([{"expression": license}]);
    }
    let key = (package.name.to_string(), package.version.to_string());
    if let Some(checksum) = checksums.get(&key) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

fn url(package: &Package) -> String {
    // A `+` begins build metadata, and has to be escaped.
    let version = package.version.to_string().replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", package.name)
}

/// The digests of the packages' archives, by name and version.
fn checksums(lock: &str) -> anyhow::Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().context("read Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let checksums = packages.into_iter().flatten().filter_map(|package| {
        let text = |key| Some(package.get(key)?.as_str()?.to_owned());
        Some(((text("name")?, text("version")?), text("checksum")?))
    });
    Ok(checksums.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::bill_of_materials;
    use crate::product::TRUSTWEAVE;

    #[test]
    fn it_names_what_is_in_the_program_and_nothing_else() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let bill =
            bill_of_materials(&workspace, TRUSTWEAVE.package, "x86_64-unknown-linux-gnu").unwrap();
        assert_eq!(bill["metadata"]["component"]["name"], "trustweave");
        let components = bill["components"].as_array().unwrap();
        let names: BTreeSet<_> = components
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        for name in ["git2", "libgit2-sys", "openssl-src", "kube", "rustls"] {
            assert!(names.contains(name), "{name} is missing");
        }
        // For tests, for other systems, and for another program.
        for name in [
            "insta",
            "windows-sys",
            "trustweave-testbed",
            "spiffe-rustls",
            "trustweave",
        ] {
            assert!(!names.contains(name), "{name} is not in the program");
        }
        for component in components {
            assert_eq!(
                component["hashes"][0]["content"].as_str().unwrap().len(),
                64
            );
            assert!(
                component["licenses"][0]["expression"].is_string(),
                "{component}"
            );
        }
        let own = &bill["metadata"]["component"]["bom-ref"];
        let known: BTreeSet<_> = components
            .iter()
            .map(|it| &it["bom-ref"])
            .chain([own])
            .map(|it| it.as_str().unwrap())
            .collect();
        let dependencies = bill["dependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), known.len());
        for dependency in dependencies {
            for on in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(on.as_str().unwrap()), "{on}");
            }
        }
    }
}
