//! Who trusts whom as a Mermaid flowchart, which forges draw.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::federation::impact::{Fate, GraphEdge};

/// How many lines between trust domains a picture may have; with more nobody finds anything.
const MOST: usize = 60;

/// Lines between the same two, drawn as one if both directions have the same fate.
type Lines<'e> = BTreeSet<(&'e str, &'e str, bool, Fate)>;

/// The flowchart's lines; `None` if there is nothing to draw, or too much.
pub(super) fn flowchart(edges: &[GraphEdge]) -> Option<Vec<String>> {
    let mut lines = lines(edges);
    if lines.len() > MOST {
        lines.retain(|(_, _, _, fate)| *fate != Fate::Stays);
    }
    if lines.is_empty() || lines.len() > MOST {
        return None;
    }
    let names: BTreeSet<_> = lines.iter().flat_map(|(a, b, _, _)| [*a, *b]).collect();
    let ids: BTreeMap<_, _> = names
        .iter()
        .zip(0..)
        .map(|(name, id): (_, usize)| (*name, id))
        .collect();
    let mut chart = vec!["flowchart LR".to_owned()];
    chart.extend(
        ids.iter()
            .map(|(name, id)| format!("  n{id}[\"{}\"]", label(name))),
    );
    let mut styles = Vec::new();
    for (index, (importer, exporter, both, fate)) in lines.iter().enumerate() {
        let (line, word, colour) = drawn(*fate);
        let back = if *both { "<" } else { "" };
        let (a, b) = (ids[importer], ids[exporter]);
        let word = word.map_or_else(String::new, |word| format!("|{word}|"));
        chart.push(format!("  n{a} {back}{line}{word} n{b}"));
        styles.extend(
            colour.map(|colour| format!("  linkStyle {index} stroke:{colour},stroke-width:2px")),
        );
    }
    chart.extend(styles);
    Some(chart)
}

/// The line, the word at it, and its colour: no fate is told by colour alone.
fn drawn(fate: Fate) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    match fate {
        Fate::Begins => ("==>", Some("begins"), Some("#1a7f37")),
        Fate::Ends => ("-.->", Some("ends"), Some("#cf222e")),
        Fate::Waits => ("-.->", Some("waits"), Some("#9a6700")),
        Fate::Stays => ("-->", None, None),
    }
}

fn lines(edges: &[GraphEdge]) -> Lines<'_> {
    let all: BTreeSet<_> = edges
        .iter()
        .map(|edge| (edge.importer.as_str(), edge.exporter.as_str(), edge.fate))
        .collect();
    let lines = edges.iter().filter_map(|edge| {
        let (importer, exporter) = (edge.importer.as_str(), edge.exporter.as_str());
        let both = all.contains(&(exporter, importer, edge.fate));
        (!both || importer < exporter).then_some((importer, exporter, both, edge.fate))
    });
    lines.collect()
}

/// A label between double quotes. What Mermaid could take for a mark or for HTML is written as its
/// code.
fn label(name: &str) -> String {
    let mut label = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
            label.push(c);
        } else {
            let _ = write!(label, "#{};", u32::from(c));
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trust_domain::TrustDomain;

    fn edge(importer: &str, exporter: &str, fate: Fate) -> GraphEdge {
        GraphEdge {
            importer: TrustDomain::parse(importer).unwrap(),
            exporter: TrustDomain::parse(exporter).unwrap(),
            fate,
        }
    }

    #[test]
    fn both_directions_are_one_line_if_the_same_happens_to_them() {
        let edges = [
            edge("a.test", "b.test", Fate::Stays),
            edge("b.test", "a.test", Fate::Stays),
            edge("a.test", "c.test", Fate::Begins),
            edge("c.test", "a.test", Fate::Waits),
            edge("b.test", "c.test", Fate::Ends),
        ];
        insta::assert_snapshot!(flowchart(&edges).unwrap().join("\n"), @r#"
        flowchart LR
          n0["a.test"]
          n1["b.test"]
          n2["c.test"]
          n0 <--> n1
          n0 ==>|begins| n2
          n1 -.->|ends| n2
          n2 -.->|waits| n0
          linkStyle 1 stroke:#1a7f37,stroke-width:2px
          linkStyle 2 stroke:#cf222e,stroke-width:2px
          linkStyle 3 stroke:#9a6700,stroke-width:2px
        "#);
    }

    #[test]
    fn a_picture_that_nobody_could_read_is_not_drawn() {
        let spokes = |fate| -> Vec<_> {
            (0..=MOST)
                .map(|n| edge("hub", &format!("s{n}"), fate))
                .collect()
        };
        assert_eq!(flowchart(&spokes(Fate::Begins)), None);
        let mut edges = spokes(Fate::Stays);
        edges.push(edge("hub", "new", Fate::Begins));
        assert_eq!(flowchart(&edges).unwrap().len(), 5);
        assert_eq!(flowchart(&[]), None);
        assert_eq!(label("a\"]<b>"), "a#34;#93;#60;b#62;");
    }
}
