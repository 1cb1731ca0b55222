//! The table of rules, and of the tests that show them, from what the end-to-end tests wrote down.
//!
//! `rules RESULTS DOCUMENT` prints it, and fails if a test failed or is missing in one version of SPIRE, or if the
//! document says anything else; with `--write` the document is written anew.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Where the table begins in the document.
const BEGIN: &str = "<!-- begin of the table -->\n";

/// A rule's test, and what came of it in each version of SPIRE.
type Row = (String, String);

#[derive(Default)]
struct Results {
    versions: BTreeSet<String>,
    rows: BTreeMap<Row, BTreeMap<String, bool>>,
    measured: BTreeMap<String, Vec<String>>,
}

impl Results {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut results = Self::default();
        let list = |path: &Path| {
            std::fs::read_dir(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| format!("no results in {}: run `make test`", path.display()))
        };
        for version in list(directory)? {
            for file in list(&version.path())? {
                let text = std::fs::read_to_string(file.path())?;
                results.add(&serde_json::from_str(&text)?);
            }
        }
        Ok(results)
    }

    fn add(&mut self, result: &Value) {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (test, version) = (word(&result["test"]), word(&result["spire"]));
        for rule in result["rules"].as_array().into_iter().flatten() {
            let row = self.rows.entry((word(rule), test.clone())).or_default();
            row.insert(version.clone(), result["passed"] == true);
        }
        let measured = result["measured"].as_array().into_iter().flatten();
        let measured = measured.map(|line| format!("{} (SPIRE {version})", word(line)));
        self.measured.entry(test).or_default().extend(measured);
        self.versions.insert(version);
    }

    fn table(&self) -> String {
        let mut table = "| rule | test |".to_owned();
        let versions: Vec<_> = self.versions.iter().collect();
        for version in &versions {
            let _ = write!(table, " SPIRE {version} |");
        }
        let _ = writeln!(table, "\n|---|---|{}", "---|".repeat(versions.len()));
        let mut last = "";
        for ((rule, test), results) in &self.rows {
            let shown = if rule == last { "" } else { rule };
            let _ = write!(table, "| {shown} | `{test}` |");
            for version in &versions {
                let result = match results.get(*version) {
                    Some(true) => "passed",
                    Some(false) => "**failed**",
                    None => "not run",
                };
                let _ = write!(table, " {result} |");
            }
            table.push('\n');
            last = rule;
        }
        table
    }

    /// What was measured in the last run, for people.
    fn times(&self) -> String {
        let lines = self.measured.values().flatten();
        lines.fold(String::new(), |text, line| text + "* " + line + "\n")
    }

    fn is_complete(&self) -> bool {
        let all = |results: &BTreeMap<String, bool>| {
            results.len() == self.versions.len() && results.values().all(|passed| *passed)
        };
        !self.rows.is_empty() && self.rows.values().all(all)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (write, paths): (Vec<_>, Vec<_>) = arguments.iter().partition(|it| *it == "--write");
    let [results, document] = paths.as_slice() else {
        bail!("usage: rules [--write] RESULTS DOCUMENT");
    };
    let results = Results::read(Path::new(results))?;
    let (table, times) = (results.table(), results.times());
    println!("{table}\n{times}");
    let text = std::fs::read_to_string(document).with_context(|| format!("read {document}"))?;
    let (introduction, standing) = text
        .split_once(BEGIN)
        .with_context(|| format!("{document} has no line `{}`", BEGIN.trim()))?;
    if !write.is_empty() {
        let times = format!("\nMeasured in the run that this table comes from:\n\n{times}");
        std::fs::write(document, format!("{introduction}{BEGIN}{table}{times}"))?;
    } else if !standing.starts_with(&table) {
        bail!("{document} says something else: `make rules` writes it anew");
    }
    if !results.is_complete() {
        bail!("not every rule was shown in every version of SPIRE");
    }
    Ok(())
}
