//! The page about metrics and alarms.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::Value;

use super::{cell, documents, metrics, page as reference, read, source::documented};

/// A metric, as a scrape describes it.
struct Metric {
    name: String,
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Every metric, in the order of a scrape.
fn all() -> Vec<Metric> {
    let scrape = metrics::scrape();
    let samples = metrics::labels();
    let mut found = Vec::new();
    for (name, help) in scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
    {
        let kind = format!("# TYPE {name} ");
        let kind = scrape
            .lines()
            .find_map(|line| line.strip_prefix(&kind))
            .unwrap();
        // Samples of counters and histograms have names of their own.
        let sample = match kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_count"),
            _ => name.to_owned(),
        };
        let labels = samples.get(&sample);
        let labels = labels
            .ok_or_else(|| format!("no sample of {name}: add one to tests/deploy/metrics.rs"));
        found.push(Metric {
            labels: labels.unwrap().clone(),
            name: if kind == "histogram" {
                name.to_owned()
            } else {
                sample
            },
            kind: kind.to_owned(),
            help: help.to_owned(),
        });
    }
    found
}

/// Rows about labels: the documentation of the types that carry them.
fn labels(all: &[Metric]) -> String {
    let source = read("src/agent/telemetry.rs");
    let mut told = BTreeMap::<(String, String), Vec<String>>::new();
    for part in source.split("EncodeLabelSet)]\n").skip(1) {
        let (part, _) = part.split_once("\n}").unwrap();
        let fields = documented(part, ": ").into_iter();
        let fields: BTreeMap<String, String> = fields
            .filter_map(|(line, documentation)| {
                let (name, _) = line.strip_prefix("pub ")?.split_once(':')?;
                Some((name.trim_start_matches("r#").to_owned(), documentation))
            })
            .collect();
        let of = all
            .iter()
            .filter(|metric| metric.labels.iter().eq(fields.keys()));
        let of: Vec<String> = of.map(|metric| format!("`{}`", metric.name)).collect();
        assert!(
            !of.is_empty(),
            "no metric has exactly the labels {fields:?}"
        );
        for field in fields {
            told.entry(field).or_default().extend(of.clone());
        }
    }
    let mut rows = String::new();
    for ((name, meaning), of) in told {
        let _ = writeln!(
            rows,
            "| `{name}` | {} | {} |",
            of.join(", "),
            cell(&meaning)
        );
    }
    rows
}

/// Rows about the alarms of `deploy/monitoring`.
fn alarms() -> String {
    let rules = documents(&read("deploy/monitoring/prometheusrule.yaml")).remove(0);
    let groups = rules["spec"]["groups"].as_array().into_iter().flatten();
    let mut rows = String::new();
    for rule in groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()) {
        let text = |pointer: &str| cell(rule.pointer(pointer).and_then(Value::as_str).unwrap());
        let _ = writeln!(
            rows,
            "| `{}` | {} | {} | {} |",
            text("/alert"),
            text("/labels/severity"),
            text("/annotations/description"),
            text("/annotations/runbook"),
        );
    }
    rows
}

pub(crate) fn page() -> String {
    let all = all();
    let mut rows = String::new();
    for metric in &all {
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, kind, help) = (&metric.name, &metric.kind, cell(&metric.help));
        let _ = writeln!(
            rows,
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        );
    }
    reference(
        "Metrics and alarms",
        "The agent serves them at `/metrics` of the address `listen` in its configuration, as OpenMetrics. Of several agents\n\
         of a cluster, only the one that writes tells of peers.",
        &format!(
            "## Metrics\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}\n\
             ## Labels\n\n| label | of | meaning |\n|---|---|---|\n{}\n\
             ## Alarms\n\nThose of `deploy/monitoring`. The last column is what they have as `runbook`; [runbooks.md](../runbooks.md) \
             has longer ones.\n\n| alarm | severity | what it means | what to do |\n|---|---|---|---|\n{}",
            labels(&all),
            alarms()
        ),
    )
}
