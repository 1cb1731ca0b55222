//! Nothing that others wrote becomes a mark, and a comment is never too long.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::{Value, json};

use super::*;
use crate::{
    cli::diff::report::changed,
    federation::impact::{IdentityChange, KeyChange, PublicationChange, PublicationState},
    model::{
        diagnostic::{Code, Diagnostic},
        distrust::{JwtKeyId, KeyId},
        manifest::ObjectRef,
        repository::RepoPath,
        trust_domain::TrustDomain,
    },
};

/// A part of every hostile text, to find it again.
const PLANTED: &str = "PLANTED";

/// What an attacker might try, to be mixed.
const FRAGMENTS: [&str; 28] = [
    "`",
    "```",
    "````",
    "~~~",
    "\n",
    "\n\n",
    "\r\n",
    "# ",
    "</details>",
    "<script>alert(1)</script>",
    "<!--",
    "-->",
    "<img src=x>",
    "![i](https://evil.test/x)",
    "[l](javascript:x)",
    "@everyone",
    "#1",
    "https://evil.test",
    "www.evil.test",
    "**",
    "_",
    "|",
    "- ",
    "\\",
    "&lt;",
    "\u{202e}",
    "\u{1b}[31m",
    " ",
];

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("a.test").unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::parse("cluster-1").unwrap()
}

fn told(change: Change) -> Trust {
    Trust {
        sentence: change.sentence(),
        details: change.details(),
        change: Some(change),
        registrations: BTreeMap::new(),
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

/// A report in which everything that others may have written is `text`.
fn report(text: &str) -> Report {
    let identity = IdentityChange {
        trust_domain: trust_domain(),
        cluster: cluster(),
        registration: text.to_owned(),
        before: Some(text.to_owned()),
        after: Some(format!("{text}x")),
        fields: BTreeSet::from([text.to_owned()]),
        workloads_before: vec![text.to_owned()],
        workloads_after: vec![text.to_owned()],
        privileges: Vec::new(),
    };
    let key = JwtKeyId {
        kid: text.to_owned(),
        thumbprint: "t".to_owned(),
    };
    let revoked = KeyChange::RevocationRemoved {
        by: trust_domain(),
        trust_domain: trust_domain(),
        keys: vec![KeyId::Jwt(key)],
    };
    let refused = PublicationChange {
        trust_domain: trust_domain(),
        before: PublicationState::Nothing,
        after: PublicationState::Refused {
            reason: "r".to_owned(),
            message: text.to_owned(),
        },
        importers: BTreeSet::new(),
    };
    let reference = ObjectRef::of(&config_map(text, "x")).unwrap();
    let (before, after) = (config_map(text, "before"), config_map(text, text));
    let mut object = changed(Action::Update, &reference, Some(&before), Some(&after)).unwrap();
    object.conflicts.push(text.to_owned());
    let changed = Changed {
        objects: vec![object],
        restarts: vec![reference],
    };
    Report {
        trust: Some(vec![
            told(Change::Identity(identity)),
            told(Change::Keys(revoked)),
            told(Change::Publication(refused)),
        ]),
        clusters: BTreeMap::from([(cluster(), changed)]),
        diagnostics: vec![Diagnostic::error(
            Code::InvalidValue,
            &RepoPath::ROOT,
            text.to_owned(),
        )],
        unread: 1,
        ..Report::default()
    }
}

fn parse(markdown: &str) -> Vec<Event<'_>> {
    let extensions = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_GFM;
    Parser::new_ext(markdown, extensions).collect()
}

/// What a reader's forge makes of a comment, without its texts.
fn shape(markdown: &str) -> Vec<String> {
    let mut shape = Vec::new();
    let mut in_block = false;
    for event in parse(markdown) {
        let one = match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                in_block = true;
                format!("{kind:?}")
            }
            Event::End(TagEnd::CodeBlock) => {
                in_block = false;
                continue;
            }
            Event::Text(_) if in_block => continue,
            Event::Text(_) => "text".to_owned(),
            Event::Code(_) => "code".to_owned(),
            Event::Html(html) | Event::InlineHtml(html) => html.into_string(),
            event => format!("{event:?}"),
        };
        shape.push(one);
    }
    shape.dedup_by(|a, b| a == "text" && b == "text");
    shape
}

/// The texts outside code.
fn prose(markdown: &str) -> String {
    let mut in_block = false;
    let texts = parse(markdown).into_iter().filter_map(|event| match event {
        Event::Start(Tag::CodeBlock(_)) => {
            in_block = true;
            None
        }
        Event::End(TagEnd::CodeBlock) => {
            in_block = false;
            None
        }
        Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) if !in_block => {
            Some(text.into_string())
        }
        _ => None,
    });
    texts.collect()
}

proptest! {
    #[test]
    fn what_others_wrote_is_never_a_mark(parts in prop::collection::vec(0..FRAGMENTS.len(), 0..12), at in 0..12_usize) {
        let mut parts: Vec<_> = parts.into_iter().map(|index| FRAGMENTS[index]).collect();
        parts.insert(at.min(parts.len()), PLANTED);
        let hostile = comment(&report(&parts.concat()), "trustweave diff", GITHUB_LIMIT);
        let benign = comment(&report("benign"), "trustweave diff", GITHUB_LIMIT);
        prop_assert_eq!(shape(&hostile), shape(&benign), "{}", hostile);
        prop_assert!(!prose(&hostile).contains(PLANTED), "{}", hostile);
        let steering = hostile.contains(['\u{202e}', '\u{1b}']);
        prop_assert!(!steering, "{}", hostile);
    }

    #[test]
    fn a_comment_is_never_too_long_nor_cut_inside(limit in 1_500..9_000_usize, objects in 0..40_usize, sentences in 0..40_usize) {
        let mut large = report("x");
        let mut all = Vec::new();
        for number in 0..objects {
            let name = format!("object-{number}");
            let reference = ObjectRef::of(&config_map(&name, "")).unwrap();
            let (before, after) = (config_map(&name, "a"), config_map(&name, &"b\n".repeat(number)));
            all.extend(changed(Action::Update, &reference, Some(&before), Some(&after)));
        }
        let count = all.len();
        large.clusters.insert(cluster(), Changed { objects: all, restarts: Vec::new() });
        for _ in 0..sentences {
            let more = report("x").trust.unwrap();
            large.trust.get_or_insert_default().extend(more);
        }
        let text = comment(&large, "trustweave diff --base main", limit);
        prop_assert!(text.len() <= limit, "{} > {limit}", text.len());
        prop_assert!(text.starts_with(MARKER));
        prop_assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
        let shown = text.matches("**Update** `").count();
        // The last paragraph is prose: no block is open, and it says what is missing.
        let prose = prose(&text);
        let left_out = format!("{} object", count - shown);
        prop_assert_eq!(shown < count, prose.contains(&left_out) && prose.contains("Left out"), "{}", text);
        if shown == count && sentences == 0 {
            prop_assert!(!prose.contains("Left out"), "{}", text);
        }
    }
}
