//! What a `topology.yaml` stands for: directions of trust between trust domains.
//!
//! Written anew, as tests of the product must not fit their declarations with the product's own reading of it.

use std::collections::BTreeSet;

use serde_json::Value;

/// Directions of trust: the workloads of the first trust domain trust the second.
pub type Directions = BTreeSet<(String, String)>;

/// The directions that the `spec` of a topology stands for.
pub fn directions(spec: &Value) -> Directions {
    let mut directions = Directions::new();
    let mut both = |a: &str, b: &str| {
        directions.insert((a.to_owned(), b.to_owned()));
        directions.insert((b.to_owned(), a.to_owned()));
    };
    for edge in items(&spec["edges"]) {
        if let [a, b] = names(&edge["between"])[..] {
            both(a, b);
        }
    }
    for group in items(&spec["groups"]) {
        let members = names(&group["members"]);
        if group["mesh"] == true {
            for (index, a) in members.iter().enumerate() {
                for b in &members[..index] {
                    both(a, b);
                }
            }
        }
        if let Some(hub) = group["hub"].as_str() {
            for spoke in names(&group["spokes"]) {
                both(hub, spoke);
            }
        }
    }
    for edge in items(&spec["edges"]) {
        if let (Some(from), Some(to)) = (edge["from"].as_str(), edge["to"].as_str()) {
            directions.insert((from.to_owned(), to.to_owned()));
        }
    }
    directions
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn names(list: &Value) -> Vec<&str> {
    items(list).filter_map(Value::as_str).collect()
}

/// The trust domains that a trust domain trusts, and those that trust it.
pub fn consent(directions: &Directions, trust_domain: &str) -> (Vec<String>, Vec<String>) {
    let import = directions
        .iter()
        .filter(|(importer, _)| importer == trust_domain);
    let export = directions
        .iter()
        .filter(|(_, exporter)| exporter == trust_domain);
    (
        import.map(|(_, exporter)| exporter.clone()).collect(),
        export.map(|(importer, _)| importer.clone()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::directions;

    #[test]
    fn edges_meshes_and_hubs_add_up() {
        let spec = json!({
            "edges": [{"between": ["a", "b"]}, {"from": "a", "to": "c"}],
            "groups": [
                {"name": "m", "mesh": true, "members": ["x", "y", "z"]},
                {"name": "h", "hub": "h", "spokes": ["a"]},
                {"name": "named", "members": ["p", "q"]},
            ],
        });
        let found: Vec<String> = directions(&spec)
            .into_iter()
            .map(|(importer, exporter)| format!("{importer}{exporter}"))
            .collect();
        assert_eq!(
            found,
            [
                "ab", "ac", "ah", "ba", "ha", "xy", "xz", "yx", "yz", "zx", "zy"
            ]
        );
    }
}
