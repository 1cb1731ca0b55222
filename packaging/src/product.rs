//! The images that this project publishes. `deploy/Containerfile` says the same for those who build with an engine.

use std::path::Path;

use crate::image::Image;
use crate::tree::Tree;

/// Where images are published.
pub const REGISTRY: &str = "ghcr.io/trustweave";

/// User and group; the number is the one that images without a user database use for nobody in particular.
pub const USER: &str = "65532:65532";

/// Where the programs lie.
pub const PROGRAMS: &str = "/usr/local/bin";

/// The project's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An image of one program.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The name of the image, without registry and tag.
    pub name: &'static str,
    /// The name of the program, which lies in [`PROGRAMS`].
    pub program: &'static str,
    /// What the image is, in a sentence.
    pub description: &'static str,
    /// The package that the program is built from.
    pub package: &'static str,
}

/// The agent and command line.
pub const TRUSTWEAVE: Product = Product {
    name: "trustweave",
    program: "trustweave",
    description: "A GitOps agent that makes a git repository the place where SPIFFE trust domains federate",
    package: "trustweave",
};

/// The workloads of `examples/repo-layout`.
pub const EXAMPLE_WORKLOADS: Product = Product {
    name: "example-workloads",
    program: "example-workloads",
    description: "A server and a client that know each other by their SPIFFE IDs alone",
    package: "trustweave-example-workloads",
};

impl Product {
    /// The image's full name.
    pub fn reference(&self) -> String {
        format!("{REGISTRY}/{}:{VERSION}", self.name)
    }

    /// How it is run, and what it says of itself.
    pub fn image(&self) -> Image {
        let labels = [
            ("title", self.name),
            ("description", self.description),
            ("version", VERSION),
            ("licenses", "Apache-2.0"),
            ("source", "https://github.com/trustweave/trustweave"),
        ];
        let labels = labels.map(|(name, value)| {
            let name = format!("org.opencontainers.image.{name}");
            (name, value.to_owned())
        });
        Image {
            reference: self.reference(),
            entrypoint: vec![format!("{PROGRAMS}/{}", self.program)],
            // So that `kubectl exec … -- trustweave status` finds it.
            environment: vec![format!("PATH={PROGRAMS}")],
            user: USER.to_owned(),
            labels: labels.into(),
            ..Image::default()
        }
    }

    /// Its files, around a statically linked program.
    pub fn tree(&self, program: &Path) -> Tree {
        Tree::base().program(&format!("{PROGRAMS}/{}", self.program), program)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{PROGRAMS, TRUSTWEAVE, USER};
    use crate::tree::CA_CERTIFICATES;

    fn deployed(file: &str) -> String {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        fs::read_to_string(directory.join(file)).unwrap()
    }

    #[test]
    fn the_recipe_for_engines_gives_the_same_image() {
        let recipe = deployed("Containerfile");
        let (build, image) = recipe.split_once("\nFROM scratch\n").unwrap();
        let rust = concat!("/rust:", env!("CARGO_PKG_RUST_VERSION"), ".");
        assert!(build.contains(rust), "not Rust's version of the workspace");
        let own = TRUSTWEAVE.image();
        let mut lines = vec![
            format!("USER {USER}"),
            format!("ENTRYPOINT [\"{PROGRAMS}/trustweave\"]"),
            format!("COPY --from=build {CA_CERTIFICATES} {CA_CERTIFICATES}"),
            format!("COPY --from=build /src/target/release/trustweave {PROGRAMS}/trustweave"),
        ];
        lines.extend(own.environment.iter().map(|it| format!("ENV {it}")));
        let labels = own.labels.iter();
        lines.extend(labels.map(|(name, value)| format!("LABEL {name}=\"{value}\"")));
        for line in &lines {
            assert!(image.lines().any(|it| it == line), "no line `{line}`");
        }
        assert_eq!(
            image.lines().filter(|it| !it.is_empty()).count(),
            lines.len()
        );
    }

    #[test]
    fn the_deployment_runs_it_as_its_user() {
        let deployment = deployed("deployment.yaml");
        assert!(deployment.contains(&format!("image: {}\n", TRUSTWEAVE.reference())));
        let (user, group) = USER.split_once(':').unwrap();
        for (field, value) in [("runAsUser", user), ("runAsGroup", group)] {
            assert!(
                deployment.contains(&format!("{field}: {value}\n")),
                "{field}"
            );
        }
    }
}
