//! What the program's own source says of itself.

use super::{files, read};

/// A source file, without its tests and the comments in it.
pub(crate) fn program(text: &str) -> String {
    let (text, _) = text.split_once("#[cfg(test)]\n").unwrap_or((text, ""));
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Every source file below a directory of `src` that is no test, and its text.
pub(crate) fn sources(below: &str) -> Vec<(String, String)> {
    let paths = files(&format!("src/{below}"), ".rs").into_iter();
    let paths = paths.map(|path| path.to_str().unwrap().to_owned());
    let paths = paths.filter(|path| !path.ends_with("tests.rs") && !path.contains("/tests/"));
    paths.map(|path| (path.clone(), read(&path))).collect()
}

/// Each item of a text whose line has this in it, and the documentation above it, in one line.
pub(crate) fn documented<'a>(text: &'a str, part: &str) -> Vec<(&'a str, String)> {
    let mut found = Vec::new();
    let mut documentation = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(line) = line.strip_prefix("///") {
            documentation.push(line.trim());
        } else if !line.starts_with("#[") {
            if line.contains(part) {
                found.push((line, documentation.join(" ")));
            }
            documentation.clear();
        }
    }
    found
}
