//! The answer for people at a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::report::{Changed, Object, Report, Trust};
use crate::{
    cli::output::visible,
    federation::impact::{Piece, Sentence},
    plan::diff::{Line, Side},
};

const HEADING: Style = Style::new().bold();
const PLACE: Style = AnsiColor::Cyan.on_default();
const NOTE: Style = AnsiColor::Yellow.on_default();

/// The answer, with styles that a terminal shows; the writer takes them out for anything else.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    if !report.trust().is_empty() {
        let _ = writeln!(text, "{HEADING}Trust:{HEADING:#}");
        report.trust().iter().for_each(|one| trust(&mut text, one));
        text.push('\n');
    }
    for (cluster, changed) in &report.clusters {
        let _ = writeln!(text, "{HEADING}Cluster {cluster}:{HEADING:#}");
        self::changed(&mut text, changed);
        text.push('\n');
    }
    let _ = writeln!(text, "{HEADING}{}{HEADING:#}", report.summary());
    text
}

fn trust(text: &mut String, trust: &Trust) {
    let _ = writeln!(text, "  {}", plain(&trust.sentence));
    for detail in &trust.details {
        let _ = writeln!(text, "    - {}", plain(detail));
    }
}

fn plain(sentence: &Sentence) -> String {
    let pieces = sentence.pieces().iter();
    pieces
        .map(|piece| match piece {
            Piece::Words(words) => (*words).into(),
            Piece::Value(text) | Piece::Name(text) => visible(text),
        })
        .collect()
}

fn changed(text: &mut String, changed: &Changed) {
    changed.objects.iter().for_each(|one| object(text, one));
    for workload in &changed.restarts {
        let workload = workload.to_string();
        let _ = writeln!(
            text,
            "{NOTE}# {} replaces its pods{NOTE:#}",
            visible(&workload)
        );
    }
}

fn object(text: &mut String, object: &Object) {
    for line in object.difference.header() {
        let _ = writeln!(text, "{HEADING}{}{HEADING:#}", visible(&line));
    }
    for hunk in &object.difference.hunks {
        let _ = writeln!(text, "{PLACE}{}{PLACE:#}", visible(&hunk.heading));
        hunk.lines.iter().for_each(|one| line(text, one));
    }
    for note in notes(object) {
        let _ = writeln!(text, "{NOTE}# {}{NOTE:#}", visible(&note));
    }
}

fn line(text: &mut String, line: &Line) {
    let style = match line.side {
        Side::Both => Style::new(),
        Side::Before => AnsiColor::Red.on_default(),
        Side::After => AnsiColor::Green.on_default(),
    };
    // A line that differs as a whole is not emphasised in every word.
    let partly = line.pieces.iter().any(|(emphasised, _)| !emphasised);
    let _ = write!(text, "{style}{}{style:#}", line.side.sign());
    for (emphasised, piece) in &line.pieces {
        let style = if *emphasised && partly {
            style.invert()
        } else {
            style
        };
        let _ = write!(text, "{style}{}{style:#}", visible(piece));
    }
    text.push('\n');
}

/// Who else has a say about what changes in an object.
pub(super) fn notes(object: &Object) -> Vec<String> {
    let mut notes = Vec::new();
    for field in object
        .difference
        .fields
        .iter()
        .filter(|it| !it.managers.is_empty())
    {
        let managers: Vec<_> = field.managers.iter().map(String::as_str).collect();
        notes.push(format!("{} was set by {}", field.path, managers.join(", ")));
    }
    for conflict in &object.conflicts {
        notes.push(format!(
            "conflict, so the agent leaves the object as it is: {conflict}"
        ));
    }
    notes
}
