//! The page about annotations and labels: what the documentation of their names says.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    cell, page as reference,
    source::{documented, sources},
};

/// Who sets a label or an annotation, as its documentation begins.
const AUTHORS: [&str; 2] = ["For people, on ", "The agent's, on "];

pub(crate) fn page() -> String {
    let mut rows = AUTHORS.map(|_| BTreeSet::new());
    for (path, text) in sources("") {
        for (line, documentation) in documented(&text, ": &str = \"") {
            let (_, name) = line.split_once('"').unwrap();
            let name = name.trim_end_matches("\";");
            let ours = ["trustweave.dev/", "applyset.kubernetes.io/"];
            if !ours.iter().any(|prefix| name.starts_with(prefix)) || name.ends_with("/v1alpha1") {
                continue;
            }
            let said = AUTHORS.iter().zip(&mut rows).find_map(|(author, rows)| {
                let (object, meaning) = documentation.strip_prefix(author)?.split_once(": ")?;
                Some(rows.insert(format!(
                    "| `{name}` | {} | {} |\n",
                    cell(object),
                    cell(meaning)
                )))
            });
            let unsaid = format!(
                "{path}: say of `{name}` who sets it, on what: `{}<object>: …`",
                AUTHORS[0]
            );
            said.ok_or(unsaid).unwrap();
        }
    }
    let mut body = String::new();
    for (rows, heading) in rows.iter().zip(["For people", "Kept by the agent"]) {
        let rows: String = rows.iter().map(String::as_str).collect();
        let _ = write!(
            body,
            "## {heading}\n\n| name | on | meaning |\n|---|---|---|\n{rows}\n"
        );
    }
    reference(
        "Annotations and labels",
        "Those that the agent keeps are its memory, or other tools' way to know what it keeps: do not change them. Beside\n\
         them, every relationship, probe and object that the agent makes of its own accord has the label\n\
         `app.kubernetes.io/managed-by: trustweave`; what has the label `app.kubernetes.io/name: trustweave` is the agent's\n\
         installation, and never pruned.",
        &body,
    )
}
