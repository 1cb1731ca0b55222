//! Text that others wrote, in Markdown: shown as it is, and never as marks.
//!
//! Names and values come from pull requests of strangers. In code, neither marks nor HTML mean anything,
//! and forges make no links and notify nobody; so everything that is not our own words is code.

use std::fmt::Write as _;

use crate::{
    cli::output::visible,
    federation::impact::{Piece, Sentence},
};

/// A sentence, its names as code.
pub(super) fn sentence(sentence: &Sentence) -> String {
    let pieces = sentence.pieces().iter();
    pieces
        .map(|piece| match piece {
            Piece::Words(words) => (*words).to_owned(),
            Piece::Value(value) => value.clone(),
            Piece::Name(name) => code(name),
        })
        .collect()
}

/// Text as a span of code (`CommonMark`, section 6.1).
pub(super) fn code(text: &str) -> String {
    let text = visible(text);
    // A span can't be empty, and one of blanks alone would look so.
    if text.trim().is_empty() {
        return "(blank)".to_owned();
    }
    let ticks = "`".repeat(longest_run(&text) + 1);
    // One blank at each end is not shown; it parts the text from the ticks.
    let pad = if text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) {
        " "
    } else {
        ""
    };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// Lines as a fenced block of code (`CommonMark`, section 4.5) that no line of it ends.
pub(super) fn fence(language: &str, lines: &[String]) -> String {
    let longest = lines.iter().map(|line| longest_run(line)).max();
    let ticks = "`".repeat(longest.unwrap_or(0).max(2) + 1);
    let mut block = format!("{ticks}{language}\n");
    for line in lines {
        let _ = writeln!(block, "{}", visible(line));
    }
    block.push_str(&ticks);
    block.push('\n');
    block
}

/// Text in a block of HTML.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The length of the longest run of backticks.
fn longest_run(text: &str) -> usize {
    let runs = text.split(|c: char| c != '`').map(str::len);
    runs.max().unwrap_or(0)
}
