//! YAML as it is generated: scalars stay as they are written, and every part can be taken away.

use std::fmt::Write as _;

/// A part of a document.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A scalar, as it is written.
    Raw(String),
    /// A text in a literal block.
    Block(Box<Node>),
    /// A mapping.
    Map(Vec<(String, Node)>),
    /// A list.
    List(Vec<Node>),
}

impl Node {
    /// A list of scalars.
    pub(crate) fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(
            texts
                .into_iter()
                .map(|text| raw(text.to_string()))
                .collect(),
        )
    }

    /// The document's text.
    pub(crate) fn write(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Raw(raw) => text.push_str(raw),
            _ => self.lines(0, &mut text),
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn lines(&self, indent: usize, text: &mut String) {
        let pad = " ".repeat(indent);
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    write!(text, "{pad}{key}:").unwrap();
                    value.behind(indent, text);
                }
            }
            Self::List(items) => {
                for item in items {
                    match item {
                        Self::Map(entries) if !entries.is_empty() => {
                            let mut inner = String::new();
                            item.lines(indent + 2, &mut inner);
                            text.push_str(&pad);
                            text.push_str("- ");
                            text.push_str(inner.trim_start());
                        }
                        item => {
                            write!(text, "{pad}-").unwrap();
                            item.behind(indent, text);
                        }
                    }
                }
            }
            Self::Raw(_) | Self::Block(_) => {}
        }
    }

    /// Writes what stands behind a key or a dash.
    fn behind(&self, indent: usize, text: &mut String) {
        match self {
            Self::Raw(raw) => writeln!(text, " {raw}").unwrap(),
            Self::Map(entries) if entries.is_empty() => text.push_str(" {}\n"),
            Self::List(items) if items.is_empty() => text.push_str(" []\n"),
            Self::Block(inner) => {
                text.push_str(" |-\n");
                for line in inner.write().lines() {
                    writeln!(text, "{}{line}", " ".repeat(indent + 2)).unwrap();
                }
            }
            inner => {
                text.push('\n');
                inner.lines(indent + 2, text);
            }
        }
    }

    /// How many parts can be taken away.
    pub(crate) fn parts(&self) -> usize {
        match self {
            Self::Raw(_) => 0,
            Self::Block(inner) => inner.parts(),
            Self::Map(entries) => entries.iter().map(|(_, value)| 1 + value.parts()).sum(),
            Self::List(items) => items.iter().map(|item| 1 + item.parts()).sum(),
        }
    }

    /// Takes one part away.
    pub(crate) fn without(&mut self, mut part: usize) {
        match self {
            Self::Raw(_) => {}
            Self::Block(inner) => inner.without(part),
            Self::Map(entries) => {
                for index in 0..entries.len() {
                    let size = 1 + entries[index].1.parts();
                    if part == 0 {
                        entries.remove(index);
                        return;
                    } else if part < size {
                        return entries[index].1.without(part - 1);
                    }
                    part -= size;
                }
            }
            Self::List(items) => {
                for index in 0..items.len() {
                    let size = 1 + items[index].parts();
                    if part == 0 {
                        items.remove(index);
                        return;
                    } else if part < size {
                        return items[index].without(part - 1);
                    }
                    part -= size;
                }
            }
        }
    }
}

/// A scalar, as it is written.
pub(crate) fn raw(text: impl Into<String>) -> Node {
    Node::Raw(text.into())
}

/// A mapping.
pub(crate) fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Map(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}
