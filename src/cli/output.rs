//! What people and programs read: the only place that writes to standard output and error.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{
    diagnostic::{Diagnostic, Position, Severity},
    repository::Tree,
};

/// In which form an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes data to standard output.
pub(super) fn data(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes text to a terminal in the place of all that it shows.
pub(super) fn screen(text: &str) -> anyhow::Result<()> {
    // ECMA-48: to the upper left corner, and all behind it erased.
    data(&format!("\u{1b}[H\u{1b}[2J\u{1b}[3J{text}"))
}

/// Writes text with ANSI styles to standard output. They are taken out unless it is a terminal that
/// shows them; `NO_COLOR` and `CLICOLOR_FORCE` are honoured.
pub(super) fn styled(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Text that somebody else wrote, fit to be shown: what would steer a terminal, break a line, or make
/// a text look like another (CVE-2021-42574) is written as its code.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    if !text.contains(hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// Writes a JSON value to standard output, indented, with a final newline.
pub(super) fn json(value: &Value) -> anyhow::Result<()> {
    data(&format!("{value:#}\n"))
}

/// Writes a line about what happens to standard error. A reader that went away is no failure.
pub(super) fn note(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Writes what an answer is typed behind to standard error.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(
        stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush()),
    );
}

/// Writes an error with its causes to standard error.
pub(super) fn error(error: &anyhow::Error) {
    note(&format!("error: {error:#}"));
}

/// Whether the reader of standard output went away, as `head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes diagnostics to standard error, each with the line of the source that it is about.
pub(super) fn diagnostics(diagnostics: &[Diagnostic], tree: &Tree) {
    let theme = if io::stderr().is_terminal() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
    for diagnostic in diagnostics {
        note(&render(diagnostic, tree, &handler));
    }
}

/// The one-line form, which editors and people can jump from, and the source below it.
fn render(diagnostic: &Diagnostic, tree: &Tree, handler: &GraphicalReportHandler) -> String {
    let mut text = diagnostic.path.to_string();
    if let Some(position) = diagnostic.position {
        let _ = write!(text, ":{position}");
    }
    let _ = write!(
        text,
        ": {}[{}]: {}",
        diagnostic.severity, diagnostic.code, diagnostic.message
    );
    if let (Some(position), Ok(source)) = (diagnostic.position, tree.text(&diagnostic.path)) {
        let label = LabeledSpan::at(span(source, position), "here");
        let snippet = MietteDiagnostic::new("").with_label(label);
        let report = miette::Report::new(snippet).with_source_code(NamedSource::new(
            diagnostic.path.as_str(),
            source.to_owned(),
        ));
        let mut rendered = String::new();
        if handler
            .render_report(&mut rendered, report.as_ref())
            .is_ok()
        {
            // The handler's own headline is empty: ours stands above.
            for line in rendered
                .lines()
                .filter(|line| !line.trim_matches([' ', '×']).is_empty())
            {
                let _ = write!(text, "\n{line}");
            }
        }
    }
    if let Some(help) = &diagnostic.help {
        let _ = write!(text, "\n  help: {help}");
    }
    text
}

/// The word at a position, as a byte range.
fn span(source: &str, position: Position) -> std::ops::Range<usize> {
    let line_start: usize = source
        .split_inclusive('\n')
        .take(position.line - 1)
        .map(str::len)
        .sum();
    let line = source[line_start..].lines().next().unwrap_or_default();
    let column = line
        .char_indices()
        .nth(position.column - 1)
        .map_or(line.len(), |(at, _)| at);
    let word = line[column..]
        .find(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | ']' | '}'))
        .unwrap_or(line.len() - column);
    let start = line_start + column;
    start..start + word.max(usize::from(column < line.len()))
}

/// The form of a diagnostic for programs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiagnosticDocument {
    /// How much it matters.
    #[schemars(extend("enum" = ["error", "warning"]))]
    severity: String,
    /// What kind of diagnostic it is; it never changes its meaning.
    code: &'static str,
    /// The file, in the repository.
    file: String,
    /// The line, from 1, if it is about one.
    line: Option<usize>,
    /// The column in characters, from 1.
    column: Option<usize>,
    /// What is wrong.
    message: String,
    /// What to do about it.
    help: Option<String>,
}

impl DiagnosticDocument {
    pub(super) fn of(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.to_string(),
            code: diagnostic.code.as_str(),
            file: diagnostic.path.to_string(),
            line: diagnostic.position.map(|position| position.line),
            column: diagnostic.position.map(|position| position.column),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
        }
    }
}

/// The form of diagnostics for programs.
pub(super) fn diagnostics_json(diagnostics: &[Diagnostic]) -> Value {
    let all = diagnostics.iter().map(DiagnosticDocument::of);
    json!(all.collect::<Vec<_>>())
}

/// `1 error`, `3 errors`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// A table as kubectl prints it: no lines, three spaces between the columns, a final newline.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec())
        .add_rows(rows.into_iter().map(|row| {
            let cells = row.into_iter();
            cells.map(|cell| visible(&cell).into_owned())
        }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    format!("{}\n", table.trim_fmt())
}

/// The time between two moments as kubectl prints ages
/// (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`).
pub(super) fn age(from: Timestamp, to: Timestamp) -> String {
    let two = |a: i64, a_unit: &str, b: i64, b_unit: &str| match b {
        0 => format!("{a}{a_unit}"),
        b => format!("{a}{a_unit}{b}{b_unit}"),
    };
    let seconds = to.as_second() - from.as_second();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        // Two clocks may differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// How long until a moment: `in 23h`, or `expired`.
pub(super) fn until(moment: Timestamp, now: Timestamp) -> String {
    if moment <= now {
        "expired".to_owned()
    } else {
        format!("in {}", age(now, moment))
    }
}

/// `3 errors, 1 warning`.
pub(super) fn summary(diagnostics: &[Diagnostic]) -> String {
    let count = |severity: Severity| {
        diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    format!(
        "{}, {}",
        plural(errors, "error"),
        plural(warnings, "warning")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_steers_is_shown_as_its_code() {
        assert_eq!(visible("a.test: é\t`x`"), "a.test: é\t`x`");
        assert_eq!(
            visible("a\u{1b}[2J\nb\u{202e}c"),
            r"a\u{1b}[2J\u{a}b\u{202e}c"
        );
    }

    #[test]
    fn ages_are_kubectls() {
        let check = |seconds: i64, expected: &str| {
            let moment = Timestamp::from_second(seconds).unwrap();
            assert_eq!(age(Timestamp::UNIX_EPOCH, moment), expected);
        };
        let (hour, day) = (3600, 86_400);
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (10 * 60 + 5, "10m"),
            (3 * hour, "3h"),
            (3 * hour + 300, "3h5m"),
            (9 * hour + 300, "9h"),
            (47 * hour, "47h"),
            (2 * day + 2 * hour, "2d2h"),
            (30 * day, "30d"),
            (2 * 365 * day + day, "2y1d"),
            (10 * 365 * day, "10y"),
        ] {
            check(seconds, expected);
        }
    }

    #[test]
    fn tables_look_like_kubectls() {
        let rows = vec![
            vec!["a".to_owned(), "x y z".to_owned()],
            vec!["bcd".to_owned()],
        ];
        insta::assert_snapshot!(table(&["NAME", "STATUS"], rows), @r"
        NAME   STATUS
        a      x y z
        bcd
        ");
    }
}
