//! Links between pages, and paths that texts name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::{files, read, root};

/// The project's directories that texts name by a path from its root.
const NAMED: &str = r"(?:^|[\s`(\[{'\x22])((?:benches|deploy|docs|examples|src|tests)/[A-Za-z0-9_./-]*[A-Za-z0-9_])";

/// Every page of the documentation.
pub(crate) fn pages() -> Vec<PathBuf> {
    let below = ["docs", "deploy", "examples"];
    let mut pages: Vec<_> = below.iter().flat_map(|below| files(below, ".md")).collect();
    pages.push("README.md".into());
    pages
}

/// What of a page leads nowhere.
pub(crate) fn dead(page: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for link in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (target, anchor) = match link.split_once('#') {
            Some((target, anchor)) => (target, Some(anchor)),
            None => (link.as_str(), None),
        };
        let place = page.display();
        let Some(found) =
            place_of(page, target).filter(|path| root().join(path).exists() || target.is_empty())
        else {
            wrong.push(format!("{place}: {link} is not there"));
            continue;
        };
        let Some(anchor) = anchor else { continue };
        let headings = if target.is_empty() {
            anchors(text)
        } else {
            anchors(&read(found.to_str().unwrap()))
        };
        if !headings.contains(anchor) {
            wrong.push(format!("{place}: {link}: no such heading"));
        }
    }
    wrong.extend(lost_paths(page, text));
    wrong
}

/// The paths from the project's root that a text names, and that are not there.
pub(crate) fn lost_paths(file: &Path, text: &str) -> Vec<String> {
    let named = Regex::new(NAMED).unwrap();
    let paths: BTreeSet<&str> = named
        .captures_iter(text)
        .filter_map(|found| Some(found.get(1)?.as_str()))
        .collect();
    let lost = paths.into_iter().filter(|path| !root().join(path).exists());
    lost.map(|path| format!("{}: {path} is not there", file.display()))
        .collect()
}

/// Where a link leads, from the project's root; `None` if it leaves it.
fn place_of(page: &Path, target: &str) -> Option<PathBuf> {
    if target.is_empty() {
        return Some(page.to_owned());
    }
    let mut place = page.parent()?.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            _ => return None,
        }
    }
    Some(place)
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// Every link and image, as it is written.
fn links(text: &str) -> Vec<String> {
    let targets = parser(text).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.to_string())
        }
        _ => None,
    });
    targets.collect()
}

/// The anchors of a page's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut times = BTreeMap::<String, usize>::new();
    let mut found = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
                let title = heading.take().unwrap_or_default().to_lowercase();
                let anchor = title
                    .chars()
                    .filter(kept)
                    .collect::<String>()
                    .replace(' ', "-");
                let before = times.entry(anchor.clone()).or_default();
                found.insert(match before {
                    0 => anchor,
                    _ => format!("{anchor}-{before}"),
                });
                *before += 1;
            }
            _ => {}
        }
    }
    found
}
