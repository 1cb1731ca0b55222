//! How the doctor's answer is written.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::output;
use crate::{
    federation::checkup::{About, Level, Outcome, Seen},
    model::diagnostic::Severity,
};

/// What was examined, and what came of it.
pub(super) struct Examined {
    /// In words.
    pub(super) subject: String,
    /// What could not be read.
    pub(super) notes: Vec<String>,
    pub(super) outcomes: Vec<Outcome>,
}

/// What became of a check, in one word.
fn status(outcome: &Outcome) -> &'static str {
    match outcome.seen {
        Seen::Well => "ok",
        Seen::Unknown(_) => "skipped",
        Seen::Amiss(_) if outcome.is_error() => "ERROR",
        Seen::Amiss(_) => "WARNING",
    }
}

/// The answer for people: a line for each check, and below it what is amiss.
pub(super) fn text(examined: &[Examined]) -> String {
    let mut text = String::new();
    for it in examined {
        let _ = writeln!(text, "{}", it.subject);
        for outcome in &it.outcomes {
            let about = &outcome.about;
            let _ = writeln!(
                text,
                "  {:<8} {:<28} {}",
                status(outcome),
                about.id,
                about.title
            );
            match &outcome.seen {
                Seen::Well => {}
                Seen::Unknown(why) => {
                    let _ = writeln!(text, "{:11}not checked: {}", "", output::visible(why));
                }
                Seen::Amiss(amiss) => {
                    for one in amiss {
                        let seen = format!("{}: {}", one.subject, one.seen);
                        let _ = writeln!(text, "{:11}seen: {}", "", output::visible(&seen));
                    }
                    let _ = writeln!(text, "{:11}why:  {}", "", about.why);
                    let _ = writeln!(text, "{:11}cure: {}", "", about.cure);
                }
            }
        }
        for note in &it.notes {
            let _ = writeln!(text, "  note: {}", output::visible(note));
        }
        text.push('\n');
    }
    let all = || examined.iter().flat_map(|it| &it.outcomes);
    let count = |matches: fn(&Outcome) -> bool| all().filter(|it| matches(it)).count();
    let skipped = count(|it| matches!(it.seen, Seen::Unknown(_)));
    let _ = writeln!(
        text,
        "{}: {}, {}, {skipped} skipped",
        output::plural(all().count(), "check"),
        output::plural(count(Outcome::is_error), "error"),
        output::plural(count(Outcome::is_warning), "warning"),
    );
    text
}

/// The answer for programs.
pub(super) fn json(examined: &[Examined]) -> Value {
    let one = |outcome: &Outcome| {
        let about = &outcome.about;
        let mut check = json!({
            "id": about.id,
            "level": about.level.to_string(),
            "severity": about.severity.to_string(),
            "title": about.title,
            "status": match outcome.seen {
                Seen::Well => "passed",
                Seen::Unknown(_) => "skipped",
                Seen::Amiss(_) => "failed",
            },
        });
        match &outcome.seen {
            Seen::Well => {}
            Seen::Unknown(why) => check["reason"] = why.as_str().into(),
            Seen::Amiss(amiss) => {
                let amiss = amiss
                    .iter()
                    .map(|it| json!({"subject": it.subject, "seen": it.seen}));
                check["findings"] = amiss.collect();
                check["why"] = about.why.into();
                check["cure"] = about.cure.into();
            }
        }
        check
    };
    let examined = examined.iter().map(|it| {
        let checks: Vec<Value> = it.outcomes.iter().map(one).collect();
        json!({"subject": it.subject, "notes": it.notes, "checks": checks})
    });
    json!({"examined": examined.collect::<Vec<_>>()})
}

/// All checks, as the documentation lists them.
pub(super) fn catalogue(catalogue: &[About]) -> String {
    let mut text = String::new();
    for (level, heading) in [
        (Level::Repository, "A repository"),
        (Level::Cluster, "A cluster"),
        (Level::Endpoint, "The bundle endpoints of its peers"),
        (
            Level::Across,
            "Several clusters, or a cluster and the repository",
        ),
    ] {
        let _ = writeln!(text, "## {heading}\n");
        for about in catalogue.iter().filter(|it| it.level == level) {
            let _ = writeln!(text, "{}", page(about));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// One check, as the documentation explains it.
pub(super) fn page(about: &About) -> String {
    let severity = match about.severity {
        Severity::Error => "An error",
        Severity::Warning => "A warning",
    };
    format!(
        "### `{}`\n\n{severity} unless {}.\n\n* Why it matters: {}.\n* Cure: {}.\n",
        about.id, about.title, about.why, about.cure
    )
}
