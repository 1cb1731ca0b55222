//! What is asked on a terminal: what neither the command line nor the cluster tells.
//!
//! Answers are read by the parsers of the files; one that does not fit is asked again.

use serde_json::json;

use super::live::{Known, Said};
use crate::{
    federation::installation::Found,
    model::{
        bundle_endpoint::Profile,
        declaration::{Distribution, Signer},
        declarations::check_endpoint_url,
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// Where a value is from that somebody answered.
const PLACE: &str = "an answer to `trustweave init`";

/// Who is asked.
pub(super) trait Asker {
    /// Asks, and takes a line for an answer. That there will be none is an error.
    fn answer(&mut self, prompt: &str) -> anyhow::Result<String>;

    /// Shows a line.
    fn tell(&mut self, line: &str);
}

/// What is to be known.
struct Question<'a> {
    /// A few words.
    what: &'a str,
    /// What an empty answer means; `None` if there has to be another.
    usual: Option<&'a str>,
    /// Whether an empty answer means that there is none.
    optional: bool,
}

impl<'a> Question<'a> {
    fn required(what: &'a str, usual: Option<&'a str>) -> Self {
        Self {
            what,
            usual,
            optional: false,
        }
    }

    fn optional(what: &'a str) -> Self {
        Self {
            what,
            usual: None,
            optional: true,
        }
    }

    /// Asks until the answer can be read; `None` only if it may be left out.
    fn put<T>(
        &self,
        asker: &mut dyn Asker,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<Option<T>> {
        let hint = match (self.usual, self.optional) {
            (Some(usual), _) => format!(" [{usual}]"),
            (None, true) => " [none]".to_owned(),
            (None, false) => String::new(),
        };
        loop {
            let line = asker.answer(&format!("{}{hint}: ", self.what))?;
            let said = match (line.trim(), self.usual) {
                ("", Some(usual)) => usual,
                ("", None) if self.optional => return Ok(None),
                ("", None) => {
                    asker.tell("  an answer is needed");
                    continue;
                }
                (said, _) => said,
            };
            match read(said) {
                Ok(value) => return Ok(Some(value)),
                Err(why) => asker.tell(&format!("  {why}")),
            }
        }
    }
}

/// Asks for all that is not known of a cluster. Its `context` is proposed for its name; `alone` says
/// that no other cluster tells where peers poll its bundle.
pub(super) fn complete(
    known: &mut Known,
    context: Option<&str>,
    alone: bool,
    asker: &mut dyn Asker,
) -> anyhow::Result<()> {
    if let Some(found) = &known.trust_domain {
        asker.tell(&format!(
            "trust domain: {}, from {}",
            found.value, found.place
        ));
    } else {
        let question = Question::required("Trust domain of the cluster's SPIRE", None);
        let read = |said: &str| TrustDomain::parse(said).map_err(|error| error.to_string());
        let said = question.put(asker, read)?;
        known.trust_domain = said.map(|said| Found::new(said, PLACE));
    }
    if let Some(found) = &known.cluster {
        asker.tell(&format!("cluster: {}, from {}", found.value, found.place));
    } else {
        let usual = context.filter(|name| ClusterName::parse(name).is_ok());
        let question = Question::required("Name of the cluster", usual);
        let read = |said: &str| ClusterName::parse(said).map_err(|error| error.to_string());
        let said = question.put(asker, read)?;
        known.cluster = said.map(|said| Found::new(said, PLACE));
    }
    spire(known, asker)?;
    if alone {
        endpoint(known, asker)?;
    }
    if known.signer.is_none() {
        let question = Question::optional("Public key that the agent signs with (ssh-ed25519 …)");
        let read = |said: &str| Signer::parse(said).map_err(|error| error.to_string());
        let said = question.put(asker, read)?;
        known.signer = said.map(|said| Found::new(String::from(said), PLACE));
    }
    Ok(())
}

/// How SPIRE is installed.
fn spire(known: &mut Known, asker: &mut dyn Asker) -> anyhow::Result<()> {
    if let Some(installation) = &mut known.installation {
        if installation.class_name.is_none() {
            let said = class_name(None, asker)?;
            installation.class_name = said.map(|said| Found::new(said, PLACE));
        }
        return Ok(());
    }
    let question = Question::required("Who installed SPIRE: ztwim, helm or custom", None);
    let read = |said: &str| {
        let found = Distribution::parse(said);
        found.ok_or_else(|| format!("`{said}` is none of `ztwim`, `helm` and `custom`"))
    };
    let Some(distribution) = question.put(asker, read)? else {
        return Ok(());
    };
    // What each distribution does unless told otherwise.
    let (namespace, class) = match distribution {
        Distribution::Ztwim => (
            Some("zero-trust-workload-identity-manager"),
            Some("zero-trust-workload-identity-manager-spire"),
        ),
        Distribution::Helm => (Some("spire-server"), None),
        Distribution::Custom => (None, None),
    };
    let question = Question::required("Namespace of the SPIRE server", namespace);
    let namespace = question.put(asker, name)?.unwrap_or_default();
    let class_name = class_name(class, asker)?.unwrap_or_default();
    known.said = Some(Said {
        distribution,
        namespace,
        class_name,
        place: PLACE,
    });
    Ok(())
}

/// The class of SPIRE's objects.
fn class_name(usual: Option<&str>, asker: &mut dyn Asker) -> anyhow::Result<Option<String>> {
    let what = "Class that SPIRE's controller manager reconciles (className)";
    Question::required(what, usual).put(asker, name)
}

/// Where peers reach the bundle endpoint, if the cluster does not tell.
fn endpoint(known: &mut Known, asker: &mut dyn Asker) -> anyhow::Result<()> {
    let configured = match &known.installation {
        None => None,
        // It is exposed, or serves none.
        Some(it) if !it.exposures.is_empty() || it.configuration.endpoint.is_none() => {
            return Ok(());
        }
        Some(it) => it.configuration.endpoint.as_ref(),
    };
    let configured = configured.map(|it| it.value.profile);
    let read = |said: &str| {
        let checked = check_endpoint_url(said);
        let checked = checked.map_err(|(reason, help)| format!("{reason}: {help}"));
        checked.map(|()| said.to_owned())
    };
    let question = Question::optional("URL at which peers reach the bundle endpoint (https://…)");
    let Some(url) = question.put(asker, read)? else {
        return Ok(());
    };
    let profile = if let Some(profile) = configured {
        profile
    } else {
        let what = "How it proves itself: https_spiffe or https_web";
        let question = Question::required(what, Some(Profile::HttpsSpiffe.as_str()));
        let read = |said: &str| {
            serde_json::from_value(json!(said))
                .map_err(|_| format!("`{said}` is neither `https_spiffe` nor `https_web`"))
        };
        question.put(asker, read)?.unwrap_or(Profile::HttpsSpiffe)
    };
    known.endpoint = Some(Found::new((profile, url), PLACE));
    Ok(())
}

/// The name of an object, or of a class.
fn name(said: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !said.chars().all(fits) {
        return Err(format!("`{said}` is not a name"));
    }
    Ok(said.to_owned())
}

/// Which of several namespaces is meant.
pub(super) fn namespace(found: &[String], asker: &mut dyn Asker) -> anyhow::Result<String> {
    let what = format!("SPIRE servers run in {}: which one", found.join(", "));
    let read = |said: &str| {
        let known = found.iter().find(|it| *it == said);
        known
            .cloned()
            .ok_or_else(|| format!("no server was found in `{said}`"))
    };
    let said = Question::required(&what, None).put(asker, read)?;
    Ok(said.unwrap_or_default())
}

/// Where to write; `None` if nothing has to be written.
pub(super) fn directory(
    optional: bool,
    asker: &mut dyn Asker,
) -> anyhow::Result<Option<std::path::PathBuf>> {
    let question = if optional {
        Question::optional("Directory for a whole repository (none: the declaration is printed)")
    } else {
        Question::required("Directory for the repository", None)
    };
    question.put(asker, |said| Ok(said.into()))
}

/// A yes, unless somebody says no.
pub(super) fn agrees(what: &str, asker: &mut dyn Asker) -> anyhow::Result<bool> {
    let question = Question::required(what, Some("yes"));
    let said = question.put(asker, |said| match said.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("say yes or no".to_owned()),
    })?;
    Ok(said == Some(true))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::cli::init::proposal::declaration;

    /// Somebody who says what is in a list, and remembers what was shown.
    struct Script {
        answers: VecDeque<&'static str>,
        shown: String,
    }

    impl Script {
        fn new(answers: &[&'static str]) -> Self {
            Self {
                answers: answers.iter().copied().collect(),
                shown: String::new(),
            }
        }
    }

    impl Asker for Script {
        fn answer(&mut self, prompt: &str) -> anyhow::Result<String> {
            let answer = self.answers.pop_front();
            let answer = answer.ok_or_else(|| anyhow::anyhow!("nobody answers `{prompt}`"))?;
            self.shown += &[prompt, answer, "\n"].concat();
            Ok(answer.to_owned())
        }

        fn tell(&mut self, line: &str) {
            self.shown += &[line, "\n"].concat();
        }
    }

    const SIGNER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr x";

    #[test]
    fn all_is_asked_of_who_has_no_cluster() {
        let mut script = Script::new(&[
            "not a trust domain",
            "",
            "a.test",
            "UPPER",
            "",
            "by hand",
            "custom",
            "",
            "spire",
            "spire-class",
            "http://bundle.a.test",
            "https://bundle.a.test",
            "mtls",
            "",
            "ssh-rsa nonsense",
            SIGNER,
        ]);
        let mut known = Known::default();
        complete(&mut known, Some("kind-one"), true, &mut script).unwrap();
        assert_eq!(script.answers.len(), 0, "{}", script.shown);
        insta::assert_snapshot!(script.shown);
        let (text, notes) = declaration(&known);
        insta::assert_snapshot!(text);
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn what_is_known_is_told_and_not_asked() {
        let mut known = Known {
            trust_domain: Some(Found::new(TrustDomain::parse("a.test").unwrap(), "x")),
            cluster: Some(Found::new(
                ClusterName::parse("a").unwrap(),
                "the command line",
            )),
            signer: Some(Found::new(SIGNER.to_owned(), "y")),
            ..Known::default()
        };
        // What may be left out, and what has a usual answer.
        let mut script = Script::new(&["ztwim", "", "", ""]);
        complete(&mut known, None, true, &mut script).unwrap();
        assert!(
            script
                .shown
                .starts_with("trust domain: a.test, from x\ncluster: a, from the command line\n")
        );
        let said = known.said.as_ref().unwrap();
        let expected = "zero-trust-workload-identity-manager";
        assert_eq!(said.namespace, expected);
        assert_eq!(said.class_name, format!("{expected}-spire"));
        assert_eq!(known.endpoint, None);
        // Nobody there: an error, and no endless questions.
        let nobody = complete(&mut Known::default(), None, true, &mut Script::new(&[]));
        assert!(nobody.unwrap_err().to_string().contains("Trust domain"));
    }

    #[test]
    fn a_choice_is_one_of_what_there_is() {
        let found = ["one", "two"].map(str::to_owned);
        let mut script = Script::new(&["three", "", "two"]);
        assert_eq!(namespace(&found, &mut script).unwrap(), "two");
        assert!(script.shown.contains("no server was found in `three`"));
        let mut script = Script::new(&["perhaps", "N", "", "", "", "there"]);
        assert!(!agrees("Write", &mut script).unwrap());
        assert!(agrees("Write", &mut script).unwrap());
        assert_eq!(directory(true, &mut script).unwrap(), None);
        assert_eq!(directory(false, &mut script).unwrap(), Some("there".into()));
    }
}
