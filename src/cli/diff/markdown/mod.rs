//! The answer as a comment on a pull request.
//!
//! What matters to trust comes first, so that it is what stays when the comment gets too long: what
//! does not fit is left out from the end, whole sentences and whole objects at a time, and the last
//! line says so.

mod escape;
mod mermaid;

use std::{collections::BTreeMap, fmt::Write as _};

use self::escape::{code, fence, html};
use super::{
    report::{Changed, Object, Report, Trust, counts},
    text::notes,
};
use crate::{
    cli::output::plural,
    federation::impact::{Change, Fate, GraphEdge},
    model::trust_domain::ClusterName,
    plan::Action,
};

/// The longest comment that GitHub takes, in characters. It is kept in bytes, of which there are never
/// fewer. GitLab (1,000,000 characters), Gitea and Forgejo take more.
pub(super) const GITHUB_LIMIT: usize = 65_536;

/// The first line, by which a pipeline finds the comment that it wrote before.
const MARKER: &str = "<!-- trustweave-diff -->";

/// What is kept free for the end of an open block.
const CLOSING: &str = "\n</details>\n\n";

/// The sections of sentences, in the order of their importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Attention,
    Trust,
    Registrations,
    Installations,
}

impl Section {
    fn of(trust: &Trust) -> Self {
        match &trust.change {
            Some(
                Change::Signers { .. }
                | Change::Endpoint { .. }
                | Change::Epoch { .. }
                | Change::Publication(_)
                | Change::Keys(_),
            ) => Self::Attention,
            Some(Change::Server(server)) if server.irreversible => Self::Attention,
            Some(Change::Identity(identity)) if !identity.privileges.is_empty() => Self::Attention,
            Some(Change::Declared { .. } | Change::Undeclared { .. } | Change::Edge { .. }) => {
                Self::Trust
            }
            Some(Change::Identity(_)) | None => Self::Registrations,
            Some(Change::Publisher { .. } | Change::Clusters { .. } | Change::Server(_)) => {
                Self::Installations
            }
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Attention => "#### :warning: Look at this first",
            Self::Trust => "#### Who trusts whom",
            Self::Registrations => "#### Which workloads get which identity, and whom they trust",
            Self::Installations => "#### Clusters and SPIRE servers",
        }
    }
}

/// The comment, of at most `limit` bytes. `again` is the command that gives the whole answer.
pub(super) fn comment(report: &Report, again: &str, limit: usize) -> String {
    let mut page = Page::new(limit, again);
    page.write(&format!(
        "{MARKER}\n### What this change does to trust and to the clusters\n\n**{}**\n\n",
        capital(&report.summary())
    ));
    problems(&mut page, report);
    sentences(&mut page, report.trust());
    graph(&mut page, &report.graph);
    restarts(&mut page, &report.clusters);
    clusters(&mut page, &report.clusters);
    page.finish()
}

/// A text that never gets longer than it may.
struct Page<'a> {
    text: String,
    limit: usize,
    again: &'a str,
    /// Something did not fit.
    full: bool,
    left_out: LeftOut,
}

/// What did not fit.
#[derive(Clone, Copy, Default)]
struct LeftOut {
    sentences: usize,
    objects: usize,
    picture: bool,
}

impl<'a> Page<'a> {
    fn new(limit: usize, again: &'a str) -> Self {
        let most = LeftOut {
            sentences: usize::MAX,
            objects: usize::MAX,
            picture: true,
        };
        let end = footer(again, most).len() + CLOSING.len();
        Self {
            text: String::new(),
            limit: limit.saturating_sub(end),
            again,
            full: false,
            left_out: LeftOut::default(),
        }
    }

    /// Writes a block whole, or not at all: neither it nor anything after it.
    fn write(&mut self, block: &str) -> bool {
        self.full |= self.text.len() + block.len() > self.limit;
        if !self.full {
            self.text.push_str(block);
        }
        !self.full
    }

    fn finish(mut self) -> String {
        self.text.push_str(&footer(self.again, self.left_out));
        self.text
    }
}

/// What was left out, and how to see everything.
fn footer(again: &str, left_out: LeftOut) -> String {
    let mut parts = Vec::new();
    if left_out.sentences > 0 {
        parts.push(plural(left_out.sentences, "sentence"));
    }
    if left_out.picture {
        parts.push("the picture".to_owned());
    }
    if left_out.objects > 0 {
        parts.push(plural(left_out.objects, "object"));
    }
    let again = code(again);
    if parts.is_empty() {
        format!("<sub>The values of Secrets are never shown.</sub> {again}\n")
    } else {
        format!(
            "**Left out, as a comment can't hold it: {}.** Everything is shown by {again}\n",
            parts.join(", ")
        )
    }
}

/// Words of our own, beginning with a capital letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// Why the answer is incomplete.
fn problems(page: &mut Page<'_>, report: &Report) {
    if report.unread == 0 {
        return;
    }
    page.write(&format!(
        ":x: **The answer is incomplete: {}.** What can't be read is taken to stay as it was.\n\n",
        plural(report.unread, "problem")
    ));
    let errors = report.diagnostics.iter().filter(|it| it.is_error());
    let lines: Vec<_> = errors
        .map(|diagnostic| {
            let place = match diagnostic.position {
                Some(position) => format!("{}:{position}", diagnostic.path),
                None => diagnostic.path.to_string(),
            };
            format!("- {} {}\n", code(&place), code(&diagnostic.message))
        })
        .collect();
    list(page, "", &lines);
}

/// A list under a heading, as many items as fit; the others are counted.
fn list(page: &mut Page<'_>, heading: &str, items: &[String]) {
    let Some((first, rest)) = items.split_first() else {
        return;
    };
    let mut written = usize::from(page.write(&format!("{heading}{first}")));
    if written == 1 {
        written += rest.iter().take_while(|item| page.write(item)).count();
        page.text.push('\n');
    }
    page.left_out.sentences += items.len() - written;
}

fn sentences(page: &mut Page<'_>, trust: &[Trust]) {
    let mut sections: BTreeMap<Section, Vec<String>> = BTreeMap::new();
    for one in trust {
        let mut item = format!("- {}\n", escape::sentence(&one.sentence));
        for detail in &one.details {
            let _ = writeln!(item, "  - {}", escape::sentence(detail));
        }
        sections.entry(Section::of(one)).or_default().push(item);
    }
    for (section, items) in sections {
        list(page, &format!("{}\n\n", section.heading()), &items);
    }
}

/// The picture, and the same in words for those who don't see it.
fn graph(page: &mut Page<'_>, edges: &[GraphEdge]) {
    if edges.is_empty() {
        return;
    }
    let Some(chart) = mermaid::flowchart(edges) else {
        page.left_out.picture = true;
        return;
    };
    let mut block = "An arrow from A to B means: workloads of A accept SVIDs of B.\n\n".to_owned();
    block.push_str(&fence("mermaid", &chart));
    block.push_str("\n<details><summary>The same in words</summary>\n\n");
    for (fate, word) in [
        (Fate::Begins, "begins"),
        (Fate::Ends, "ends"),
        (Fate::Waits, "waits for consent"),
        (Fate::Stays, "stays"),
    ] {
        for edge in edges.iter().filter(|edge| edge.fate == fate) {
            let (importer, exporter) = (code(edge.importer.as_str()), code(edge.exporter.as_str()));
            let _ = writeln!(block, "- {importer} trusts {exporter}: {word}");
        }
    }
    block.push_str(CLOSING);
    page.left_out.picture = !page.write(&block);
}

fn restarts(page: &mut Page<'_>, clusters: &BTreeMap<ClusterName, Changed>) {
    let items: Vec<_> = clusters
        .iter()
        .flat_map(|(cluster, changed)| {
            changed.restarts.iter().map(|workload| {
                let (cluster, workload) = (code(cluster.as_str()), code(&workload.to_string()));
                format!("- in {cluster}, {workload} replaces its pods\n")
            })
        })
        .collect();
    list(page, "#### Restarts of workloads\n\n", &items);
}

fn clusters(page: &mut Page<'_>, clusters: &BTreeMap<ClusterName, Changed>) {
    // What changes alike in several clusters is shown once.
    let mut shown: BTreeMap<String, &ClusterName> = BTreeMap::new();
    for (cluster, changed) in clusters {
        let opening = format!(
            "<details><summary>Cluster <code>{}</code>: {}</summary>\n\n",
            html(cluster.as_str()),
            counts(changed.objects.iter()),
        );
        let mut open = false;
        for object in &changed.objects {
            let heading = format!(
                "{} {}",
                verb(object.action),
                code(&object.reference.to_string())
            );
            let body = body(object);
            let text = match shown.get(&format!("{heading}{body}")) {
                Some(twin) => format!("{heading} as in {}\n\n", code(twin.as_str())),
                None => format!("{heading}\n\n{body}\n"),
            };
            let block = if open {
                text
            } else {
                format!("{opening}{text}")
            };
            if page.write(&block) {
                open = true;
                shown.entry(format!("{heading}{body}")).or_insert(cluster);
            } else {
                page.left_out.objects += 1;
            }
        }
        if open {
            // What was kept free for it holds it, whatever was written since.
            page.text.push_str(CLOSING.trim_start());
        }
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "**Create**",
        Action::Update => "**Update**",
        Action::Delete => "**Delete**",
    }
}

fn body(object: &Object) -> String {
    let mut lines = Vec::new();
    for hunk in &object.difference.hunks {
        lines.push(hunk.heading.clone());
        lines.extend(hunk.lines.iter().map(|line| {
            let pieces = line.pieces.iter().map(|(_, piece)| piece.as_str());
            format!("{}{}", line.side.sign(), pieces.collect::<String>())
        }));
    }
    let mut body = fence("diff", &lines);
    let notes: Vec<_> = notes(object)
        .iter()
        .map(|it| format!("- {}\n", code(it)))
        .collect();
    if !notes.is_empty() {
        let _ = write!(body, "\n{}", notes.concat());
    }
    body
}

#[cfg(test)]
mod tests;
