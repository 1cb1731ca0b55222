//! YAML for people: fields in a fixed order, with comments that say where a value was found.

use std::fmt::Write as _;

use serde_json::Value;

use crate::model::yaml;

/// How long a line of comments may get.
const WIDTH: usize = 100;

/// A text that grows by lines.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// A line at a depth of two spaces each.
    pub(super) fn line(&mut self, depth: usize, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{:1$}{line}", "", depth * 2);
    }

    /// A field with a text as its value.
    pub(super) fn field(&mut self, depth: usize, key: &str, value: &str) {
        self.line(depth, &format!("{key}: {}", scalar(value)));
    }

    /// An item of a list.
    pub(super) fn item(&mut self, depth: usize, value: &str) {
        self.line(depth, &format!("- {}", scalar(value)));
    }

    /// A comment, in as many lines as it needs.
    pub(super) fn comment(&mut self, depth: usize, words: &str) {
        let mut line = String::from("#");
        for word in words.split_whitespace() {
            if line.len() + word.len() + depth * 2 >= WIDTH && line.len() > 1 {
                self.line(depth, &line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(depth, &line);
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// A text as a scalar that every reader takes for that text.
fn scalar(text: &str) -> String {
    yaml::emit(&[Value::from(text)]).trim_end().to_owned()
}
