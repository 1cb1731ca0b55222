//! Adding entries to a `distrust.yaml` that people wrote: what they wrote stays as it is.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::super::output;
use crate::{
    git::worktree,
    model::{
        declaration::{API_VERSION, Envelope, Metadata},
        declarations::Declarations,
        diagnostic::Position,
        distrust::{self, DistrustSpec, Revocation},
        repository::{Entry, RepoPath, Tree, distrust_path, trust_domain_path},
        trust_domain::TrustDomain,
        yaml::{self, Document},
    },
};

/// The line by which editors find a schema.
const MODELINE: &str = "# yaml-language-server: $schema=";

/// The list of a `distrust.yaml` that an entry goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Revoked,
    Unrevoked,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Unrevoked => "unrevoked",
        }
    }
}

/// A trust domain's `distrust.yaml` in a work tree.
pub(super) struct DistrustFile {
    owner: TrustDomain,
    pub(super) path: RepoPath,
    /// `None` if there is no such file yet.
    text: Option<String>,
    pub(super) spec: DistrustSpec,
    /// The schema's line of the declaration beside it.
    modeline: Option<String>,
}

/// The file with more entries.
pub(super) struct Amended {
    pub(super) text: String,
    pub(super) spec: DistrustSpec,
    /// The former text could not be extended, and was written anew: its comments are lost.
    pub(super) anew: bool,
}

impl DistrustFile {
    /// Reads the file, if it is there. One that can't be used is not touched: it may revoke keys.
    pub(super) fn read(directory: &Path, owner: &TrustDomain) -> anyhow::Result<Self> {
        let declaration = trust_domain_path(owner);
        let Ok(beside) = fs::read_to_string(directory.join(declaration.as_str())) else {
            bail!(
                "there is no {declaration} in `{}`: this needs a work tree of the repository",
                directory.display()
            );
        };
        let modeline = beside
            .lines()
            .find(|line| line.starts_with(MODELINE) && line.contains("trust-domain"))
            .map(|line| line.replace("trust-domain", "distrust"));
        let path = distrust_path(owner);
        let entry = worktree::file(directory, &path).with_context(|| format!("read {path}"))?;
        let mut file = Self {
            owner: owner.clone(),
            path,
            text: None,
            spec: DistrustSpec::default(),
            modeline,
        };
        if let Some(entry) = entry {
            let mut tree = Tree::default();
            tree.insert(file.path.clone(), entry);
            file.spec = file.usable(&tree)?;
            file.text = tree.text(&file.path).ok().map(str::to_owned);
        }
        Ok(file)
    }

    /// What a tree's file says, as the agents read it.
    fn usable(&self, tree: &Tree) -> anyhow::Result<DistrustSpec> {
        let (mut declarations, mut diagnostics) = Declarations::load(tree, None);
        diagnostics.retain(|one| one.path == self.path);
        if let Some(spec) = declarations.distrust.remove(&self.owner) {
            return Ok(spec);
        }
        output::diagnostics(&diagnostics, tree);
        bail!("{} can't be used: repair it first", self.path)
    }

    fn reads_as(&self, text: &str) -> Option<DistrustSpec> {
        let mut tree = Tree::default();
        let content = Entry::File(text.as_bytes().into());
        tree.insert(self.path.clone(), content);
        let (mut declarations, _) = Declarations::load(&tree, None);
        declarations.distrust.remove(&self.owner)
    }

    /// The file with more entries in a list. What is returned was read again, and says just that.
    pub(super) fn with(&self, list: List, entries: &[Revocation]) -> anyhow::Result<Amended> {
        let mut spec = self.spec.clone();
        match list {
            List::Revoked => spec.revoked.extend_from_slice(entries),
            List::Unrevoked => spec.unrevoked.extend_from_slice(entries),
        }
        let extended = self.text.as_ref().and_then(|text| {
            let document = yaml::parse(&self.path, text).ok()?.into_iter().next()?;
            extend(text, &document, list, entries)
        });
        let extended = extended.filter(|text| self.reads_as(text).as_ref() == Some(&spec));
        let (text, anew) = match extended {
            Some(text) => (text, false),
            None => (self.written_out(&spec), self.text.is_some()),
        };
        if self.reads_as(&text).as_ref() != Some(&spec) {
            bail!(
                "{} would not say what it should: nothing was written",
                self.path
            );
        }
        Ok(Amended { text, spec, anew })
    }

    /// The whole file, with a heading.
    fn written_out(&self, spec: &DistrustSpec) -> String {
        let owner = &self.owner;
        let mut text = self
            .modeline
            .iter()
            .fold(String::new(), |text, line| text + line + "\n");
        let _ = write!(
            text,
            "# Keys that {owner} no longer accepts: its own it takes back from everybody, a peer's only for\n\
             # its own workloads. Clusters remember a revocation: removing an entry lifts nothing, an entry\n\
             # under `unrevoked` with a later time does.\n"
        );
        let mut document = json!(Envelope {
            api_version: API_VERSION.to_owned(),
            kind: distrust::KIND.to_owned(),
            metadata: Metadata {
                name: owner.to_string(),
            },
            spec,
        });
        if let Some(lists) = document["spec"].as_object_mut() {
            lists.retain(|_, entries| entries.as_array().is_none_or(|list| !list.is_empty()));
        }
        text + &yaml::emit(&[document])
    }
}

/// The text with entries added to a list, all else untouched; `None` if it is written in a style that
/// this does not know (the caller reads the result again, so that a guess does no harm).
fn extend(text: &str, document: &Document, list: List, entries: &[Revocation]) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let items = yaml::emit(&[json!(entries)]);
    let spec = &document.value["spec"];
    let pointer = format!("/spec/{}", list.name());
    match spec.get(list.name()) {
        Some(listed) if listed.as_array().is_some_and(|listed| !listed.is_empty()) => {
            let index = listed.as_array()?.len() - 1;
            let first_key = document.position_of(&format!("{pointer}/{index}"));
            let dash = dash(&lines, first_key)?;
            let end = end_of_block(&lines, first_key.line, dash);
            Some(insert(&lines, end, &indented(&items, dash)))
        }
        Some(_) => {
            let key = document.key_position_of(&pointer);
            let line = *lines.get(key.line - 1)?;
            let empty = line.trim_end().strip_suffix("[]")?.trim_end();
            let indent = key.column - 1;
            let mut lines = lines.clone();
            let empty = format!("{empty}\n");
            lines[key.line - 1] = &empty;
            Some(insert(&lines, key.line, &indented(&items, indent + 2)))
        }
        None => {
            let key = document.key_position_of("/spec");
            let first = spec.as_object()?.keys().next()?;
            let child = document.key_position_of(&format!("/spec/{first}"));
            let indent = child.column - 1;
            if child.line == key.line {
                return None;
            }
            let end = end_of_block(&lines, key.line, key.column - 1);
            let section = format!("{}:\n{}", list.name(), indented(&items, 2));
            Some(insert(&lines, end, &indented(&section, indent)))
        }
    }
}

/// The column, from 0, of the dash before the item that begins at a position.
fn dash(lines: &[&str], item: Position) -> Option<usize> {
    let before: String = lines
        .get(item.line - 1)?
        .chars()
        .take(item.column - 1)
        .collect();
    let dash = before.trim_end().strip_suffix('-')?;
    dash.trim().is_empty().then(|| dash.chars().count())
}

/// After how many lines a block ends that begins on a line (from 1), and whose own lines are all
/// indented by more than `indent`. Blank lines and comments outside do not belong to it.
fn end_of_block(lines: &[&str], begin: usize, indent: usize) -> usize {
    let mut end = begin;
    for (index, line) in lines.iter().enumerate().skip(begin) {
        let content = line.trim_start_matches(' ');
        if line.len() - content.len() > indent && !content.trim().is_empty() {
            end = index + 1;
        } else if !content.trim().is_empty() && !content.starts_with('#') {
            break;
        }
    }
    end
}

fn indented(text: &str, columns: usize) -> String {
    let indent = " ".repeat(columns);
    let line = |line: &str| match line.trim() {
        "" => line.to_owned(),
        _ => format!("{indent}{line}"),
    };
    text.split_inclusive('\n').map(line).collect()
}

fn insert(lines: &[&str], at: usize, text: &str) -> String {
    let mut before = lines[..at].concat();
    if !before.ends_with('\n') {
        before.push('\n');
    }
    before + text + &lines[at..].concat()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{bundle::Digest, distrust::KeyId};

    fn entry(reason: &str) -> Revocation {
        Revocation {
            trust_domain: TrustDomain::parse("b.test").unwrap(),
            key: KeyId::X509(Digest::of(b"key")),
            reason: reason.to_owned(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    fn file(text: &str) -> DistrustFile {
        let owner = TrustDomain::parse("b.test").unwrap();
        let mut file = DistrustFile {
            path: distrust_path(&owner),
            owner,
            text: Some(text.to_owned()),
            spec: DistrustSpec::default(),
            modeline: None,
        };
        file.spec = file.reads_as(text).unwrap();
        file
    }

    const HEAD: &str =
        "apiVersion: trustweave.dev/v1alpha1\nkind: Distrust\nmetadata: {name: b.test}\n";

    /// Every line that was there still is, in order.
    #[track_caller]
    fn check(rest: &str, list: List, expected: &str) {
        let file = file(&format!("{HEAD}{rest}"));
        let amended = file.with(list, &[entry("new: # one")]).unwrap();
        assert!(!amended.anew, "{}", amended.text);
        let text = amended.text.strip_prefix(HEAD).unwrap();
        let digest = Digest::of(b"key").to_string();
        assert_eq!(text.replace(&digest, "DIGEST"), expected);
    }

    const ITEM: &str = "    # why
    - trustDomain: b.test
      key: {x509: DIGEST}
      reason: >
        old

        # and no comment
      time: 1970-01-01T00:00:00Z
    # the end
";

    const ADDED: &str = "\
- trustDomain: b.test
  key:
    x509: DIGEST
  reason: \"new: # one\"
  time: \"1970-01-01T00:00:00Z\"
";

    #[test]
    fn entries_are_added_and_comments_stay() {
        let item = ITEM.replace("DIGEST", &Digest::of(b"key").to_string());
        let body = ITEM.strip_suffix("    # the end\n").unwrap();
        let added = |columns: usize| indented(ADDED, columns);
        check(
            &format!("spec:\n  revoked:\n{item}  unrevoked: []\n"),
            List::Revoked,
            &format!(
                "spec:\n  revoked:\n{body}{}    # the end\n  unrevoked: []\n",
                added(4)
            ),
        );
        check(
            &format!("spec:\n  revoked:\n{item}  unrevoked: []\n"),
            List::Unrevoked,
            &format!("spec:\n  revoked:\n{ITEM}  unrevoked:\n{}", added(4)),
        );
        check(
            &format!("spec:\n  revoked:\n{item}\n# done"),
            List::Unrevoked,
            &format!(
                "spec:\n  revoked:\n{ITEM}  unrevoked:\n{}\n# done",
                added(4)
            ),
        );
    }

    #[test]
    fn a_style_that_is_not_known_is_written_anew() {
        let file = file(&format!("{HEAD}spec: {{}}\n"));
        let amended = file.with(List::Revoked, &[entry("new")]).unwrap();
        assert!(amended.anew);
        assert_eq!(amended.spec.revoked, [entry("new")]);
        assert!(!amended.text.contains("unrevoked:"), "{}", amended.text);
    }
}
