//! The pages about documents: of the repository, of the cluster, and the agent's configuration.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    cell, documents, page, printed,
    schema::{Author, tables},
};

/// The schema that the program prints.
fn schema(kind: &str) -> Value {
    serde_json::from_str(&printed(&["schema", kind])).unwrap()
}

pub(crate) fn repository() -> String {
    let declarations = [
        (
            "TrustDomain",
            "trust-domain",
            "`trust-domains/<trust domain>/trust-domain.yaml`, written by the trust domain's owners. `metadata.name` is \
             the trust domain, as the directory is.",
        ),
        (
            "Topology",
            "topology",
            "`topology.yaml`: who should federate with whom. An edge is active once both sides consent.",
        ),
        (
            "Distrust",
            "distrust",
            "`trust-domains/<trust domain>/distrust.yaml`, written by `trustweave bundle revoke` and `unrevoke`. \
             `metadata.name` is the trust domain.",
        ),
    ];
    let written = [
        (
            "BundleAttestation",
            "bundle-attestation",
            "`bundle.attestation.json` on the branch `trustweave/<trust domain>`, written and signed by the trust \
             domain's agent. `endpoint` has the fields of `spec.bundleEndpoint` above. Beside it stand `bundle.json`, a SPIFFE bundle in canonical bytes, and the signature \
             `bundle.attestation.json.sig`.",
        ),
        (
            "BundleSet",
            "bundle-set",
            "What `trustweave bundle export` writes, and `trustweave bundle import` reads.",
        ),
    ];
    let mut body = String::new();
    for (kind, name, about) in declarations {
        let tables = tables(&schema(name), "spec", Author::People);
        let _ = write!(
            body,
            "## {kind}\n\n{about}\nJSON Schema: `trustweave schema {name}`.\n\n{tables}"
        );
    }
    for (kind, name, about) in written {
        let tables = tables(&schema(name), "", Author::Agent);
        // An endpoint is as it was declared.
        let (tables, _) = tables.split_once("### `endpoint`").unwrap_or((&tables, ""));
        let _ = write!(
            body,
            "## {kind}\n\n{about}\nJSON Schema: `trustweave schema {name}`.\n\n{tables}"
        );
    }
    page(
        "The documents of a repository",
        "The three kinds that people write have `apiVersion: trustweave.dev/v1alpha1`, a `kind`, `metadata.name`, and a\n\
         `spec`, whose fields are below. An unknown field is an error. `trustweave check` says what is wrong in them;\n\
         with `# yaml-language-server: $schema=<file or URL>` as the first line an editor does while one types.",
        &body,
    )
}

pub(crate) fn agent_config() -> String {
    page(
        "The agent's configuration",
        "`trustweave agent --config FILE` reads it; in `deploy/` it is the ConfigMap `trustweave`\n\
         ([an example with everything](../../deploy/README.md#in-ten-minutes)). It never comes from the repository: who the\n\
         agent is, and whom it believes, must not be decided by what it checks. A change is taken up without a restart; one\n\
         that is not usable is logged, and the former stays in force. JSON Schema: `trustweave schema agent-config`.",
        &tables(&schema("agent-config"), "", Author::People),
    )
}

pub(crate) fn cluster() -> String {
    let mut body = String::new();
    for definition in documents(&printed(&["schema", "crds"])) {
        let names = &definition["spec"]["names"];
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, plural) = (text(&names["kind"]), text(&names["plural"]));
        let short = text(&names["shortNames"][0]);
        let about = text(&schema["description"]);
        let _ = write!(
            body,
            "## {kind}\n\n{about}.\n\n`kubectl get {plural}`, or `{short}`, shows these columns, some of \
             them with `-o wide` only:\n\n| column | field | |\n|---|---|---|\n"
        );
        for column in version["additionalPrinterColumns"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let wide = if column["priority"] == 1 { "wide" } else { "" };
            let (name, path) = (text(&column["name"]), text(&column["jsonPath"]));
            let _ = writeln!(
                body,
                "| {} | `{}` | {wide} |",
                name.to_uppercase(),
                cell(&path)
            );
        }
        body.push('\n');
        let author = match kind.as_str() {
            "GitSync" => Author::People,
            _ => Author::Agent,
        };
        body.push_str(&tables(schema, "spec", author));
        body.push_str(&tables(schema, "status", Author::Agent));
    }
    page(
        "What stands in a cluster",
        "The agent's own kinds, `trustweave.dev/v1alpha1`, both of the cluster's scope. Both report; only the `spec` of\n\
         `GitSync` is for people to write. [conditions.md](conditions.md) explains conditions, reasons and events.",
        &body,
    )
}
