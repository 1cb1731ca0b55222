//! Keys that are taken back, accepted again, new in a bundle, or gone from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    publication::{self, Bundles, TrustedKey},
    sentence::{Sentence, sentence},
};
use crate::{
    federation::distrust,
    model::{
        declarations::Declarations,
        distrust::{DistrustSpec, KeyId, KeyStanding},
        trust_domain::{ClusterName, TrustDomain},
    },
};

/// Something that happens to keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum KeyChange {
    /// A trust domain takes keys back, its own from everybody, or a peer's for itself.
    Revoked {
        /// Whose file says so.
        by: TrustDomain,
        /// Whose keys they are.
        trust_domain: TrustDomain,
        /// The keys.
        keys: Vec<KeyId>,
        /// Whose workloads refuse them.
        concerned: BTreeMap<TrustDomain, Vec<ClusterName>>,
        /// Until when something may live that they signed, as far as that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        live_until: Option<Timestamp>,
        /// No X.509 authority is left.
        everything: bool,
    },
    /// A trust domain accepts keys again that it took back.
    Unrevoked {
        /// Whose file says so.
        by: TrustDomain,
        /// Whose keys they are.
        trust_domain: TrustDomain,
        /// The keys.
        keys: Vec<KeyId>,
        /// Whose workloads may believe them again.
        concerned: BTreeMap<TrustDomain, Vec<ClusterName>>,
    },
    /// Entries that revoke keys are gone, which lifts nothing.
    RevocationRemoved {
        /// From whose file.
        by: TrustDomain,
        /// Whose keys they are.
        trust_domain: TrustDomain,
        /// The keys.
        keys: Vec<KeyId>,
    },
    /// A published bundle holds keys that it did not hold before.
    #[serde(rename = "keysAppeared")]
    Appeared {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// The keys.
        keys: Vec<TrustedKey>,
        /// Who comes to believe them.
        concerned: BTreeMap<TrustDomain, Vec<ClusterName>>,
    },
    /// A published bundle no longer holds keys that have not ended.
    #[serde(rename = "keysVanished")]
    Vanished {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// The keys.
        keys: Vec<KeyId>,
        /// Who believed them.
        concerned: BTreeMap<TrustDomain, Vec<ClusterName>>,
        /// Until when something may live that they signed.
        #[schemars(with = "String")]
        live_until: Timestamp,
    },
}

impl KeyChange {
    pub(super) fn sentence(&self) -> Sentence {
        match self {
            Self::Revoked {
                by,
                trust_domain,
                keys,
                concerned,
                live_until,
                everything,
            } => {
                let told = revoked(by, trust_domain, keys, concerned);
                let told = match live_until {
                    Some(ends) => sentence!(
                        told,
                        "; SVIDs signed by ",
                        pronoun(keys),
                        " may live until ",
                        *ends,
                    ),
                    None => told,
                };
                if !*everything {
                    return told;
                }
                sentence!(
                    told,
                    "; no X.509 authority of ",
                    trust_domain,
                    " is left: everything of ",
                    trust_domain,
                    " is distrusted at once",
                )
            }
            Self::Unrevoked {
                by,
                trust_domain,
                keys,
                concerned,
            } => accepted_again(by, trust_domain, keys, concerned),
            Self::RevocationRemoved {
                by,
                trust_domain,
                keys,
            } => sentence!(
                by,
                " no longer lists ",
                of(keys, by, trust_domain),
                " as revoked: that lifts nothing: clusters remember it; to lift it, write an \
                 `unrevoked` entry (trustweave bundle unrevoke)",
            ),
            Self::Appeared {
                trust_domain,
                keys,
                concerned,
            } => {
                let (new, signed) = match keys.as_slice() {
                    [_] => (" publishes a new key: ", " will accept SVIDs signed by it"),
                    _ => (" publishes new keys: ", " will accept SVIDs signed by them"),
                };
                let told = sentence!(trust_domain, new, TrustedKey::list(keys));
                if let Some(who) = workloads(concerned) {
                    sentence!(told, "; ", who, signed)
                } else {
                    sentence!(told, "; nobody trusts ", trust_domain, " now")
                }
            }
            Self::Vanished {
                trust_domain,
                keys,
                concerned,
                live_until,
            } => {
                let told = sentence!(
                    trust_domain,
                    " no longer publishes ",
                    list(keys),
                    ": SVIDs signed by ",
                    pronoun(keys),
                    " may live until ",
                    *live_until,
                );
                match workloads(concerned) {
                    Some(who) => sentence!(told, ", and ", who, " refuse them"),
                    None => told,
                }
            }
        }
    }
}

/// That keys are taken back, and who refuses them.
fn revoked(
    by: &TrustDomain,
    trust_domain: &TrustDomain,
    keys: &[KeyId],
    concerned: &BTreeMap<TrustDomain, Vec<ClusterName>>,
) -> Sentence {
    let it = pronoun(keys);
    let told = sentence!(by, " revokes ", of(keys, by, trust_domain), ": ");
    if let Some(who) = workloads(concerned) {
        sentence!(told, who, " refuse at once what ", signer(keys), " signed")
    } else {
        sentence!(told, "nobody trusts ", trust_domain, " by ", it, " now")
    }
}

/// That keys are accepted again that were taken back, and who believes them.
fn accepted_again(
    by: &TrustDomain,
    trust_domain: &TrustDomain,
    keys: &[KeyId],
    concerned: &BTreeMap<TrustDomain, Vec<ClusterName>>,
) -> Sentence {
    let it = pronoun(keys);
    let told = sentence!(by, " accepts ", of(keys, by, trust_domain), " again: ");
    let Some(who) = workloads(concerned) else {
        return sentence!(told, "nobody trusts ", trust_domain, " by ", it, " now");
    };
    let believed = sentence!(told, who, " believe what ", signer(keys), " signed, ");
    sentence!(
        believed,
        "where a bundle holds ",
        it,
        " and they have not revoked ",
        it,
        " themselves",
    )
}

/// Keys, and whose they are unless they are the speaker's own.
fn of(keys: &[KeyId], by: &TrustDomain, trust_domain: &TrustDomain) -> Sentence {
    if by == trust_domain {
        list(keys)
    } else {
        sentence!(list(keys), " of ", trust_domain)
    }
}

fn list(keys: &[KeyId]) -> Sentence {
    Sentence::join(keys.iter().map(|key| sentence!(key)), " and ")
}

fn pronoun<T>(items: &[T]) -> &'static str {
    match items {
        [_] => "it",
        _ => "them",
    }
}

fn signer<T>(items: &[T]) -> &'static str {
    match items {
        [_] => "it",
        _ => "they",
    }
}

/// `the workloads of cluster-1 (a.test)`.
fn workloads(concerned: &BTreeMap<TrustDomain, Vec<ClusterName>>) -> Option<Sentence> {
    let each = concerned.iter().map(|(trust_domain, clusters)| {
        sentence!(Sentence::names(clusters), " (", trust_domain, ")")
    });
    (!concerned.is_empty()).then(|| sentence!("the workloads of ", Sentence::join(each, " and ")))
}

/// The trust domains of whose keys somebody says something now that was not said before.
pub(super) fn talked_about(before: &Declarations, after: &Declarations) -> BTreeSet<TrustDomain> {
    let mut names = BTreeSet::new();
    for owner in before.distrust.keys().chain(after.distrust.keys()) {
        let (old, new) = (before.distrust.get(owner), after.distrust.get(owner));
        if old != new {
            let entries = [old, new]
                .into_iter()
                .flatten()
                .flat_map(DistrustSpec::keys);
            names.extend(entries.map(|(trust_domain, _)| trust_domain.clone()));
        }
    }
    names
}

/// What every `distrust.yaml` says now and did not say before.
pub(super) fn distrusted(
    before: &Declarations,
    after: &Declarations,
    bundles: &Bundles,
) -> Vec<KeyChange> {
    let nothing = DistrustSpec::default();
    let owners: BTreeSet<_> = before
        .distrust
        .keys()
        .chain(after.distrust.keys())
        .collect();
    let mut changes = Vec::new();
    for by in owners {
        if after.distrust_unknown.contains(by) {
            continue;
        }
        let spec = |declarations: &'_ Declarations| declarations.distrust.get(by).cloned();
        let (old, new) = (spec(before), spec(after));
        let (old, new) = (
            old.as_ref().unwrap_or(&nothing),
            new.as_ref().unwrap_or(&nothing),
        );
        let mut keys: BTreeMap<(&TrustDomain, KeyStanding), Vec<KeyId>> = BTreeMap::new();
        let named: BTreeSet<_> = old.keys().union(&new.keys()).copied().collect();
        for (trust_domain, key) in named {
            let (was, is) = (
                old.standing(trust_domain, key),
                new.standing(trust_domain, key),
            );
            // An entry that lifted something is remembered no less than what it lifted.
            if was != is && (was, is) != (KeyStanding::Lifted, KeyStanding::Unmentioned) {
                keys.entry((trust_domain, is))
                    .or_default()
                    .push(key.clone());
            }
        }
        for ((trust_domain, is), keys) in keys {
            let (by, trust_domain) = (by.clone(), trust_domain.clone());
            let concerned = distrust::concerned(after, &by, &trust_domain);
            changes.push(match is {
                KeyStanding::Revoked => KeyChange::Revoked {
                    live_until: bundles.live_until(&trust_domain, &keys),
                    everything: everything(after, bundles, &by, &trust_domain),
                    by,
                    trust_domain,
                    keys,
                    concerned,
                },
                KeyStanding::Lifted => KeyChange::Unrevoked {
                    by,
                    trust_domain,
                    keys,
                    concerned,
                },
                KeyStanding::Unmentioned => KeyChange::RevocationRemoved {
                    by,
                    trust_domain,
                    keys,
                },
            });
        }
    }
    changes
}

/// Whether no X.509 authority is left to those whom `by`'s file concerns.
fn everything(
    after: &Declarations,
    bundles: &Bundles,
    by: &TrustDomain,
    trust_domain: &TrustDomain,
) -> bool {
    let files = BTreeSet::from([by, trust_domain]);
    let files = files
        .into_iter()
        .filter_map(|name| after.distrust.get(name));
    let bundle = Bundles::usable(&bundles.after, trust_domain);
    bundle.is_some_and(|bundle| distrust::accepted(bundle, trust_domain, files) == 0)
}

/// Keys that a published bundle holds and did not hold before, and those that it no longer holds,
/// though what they signed may still live.
pub(super) fn published(after: &Declarations, bundles: &Bundles) -> Vec<KeyChange> {
    let mut changes = Vec::new();
    for trust_domain in bundles.before.keys() {
        let [Some(old), Some(new)] =
            [&bundles.before, &bundles.after].map(|side| Bundles::usable(side, trust_domain))
        else {
            continue;
        };
        let known: BTreeSet<_> = old.keys().collect();
        let mut keys = publication::trusted(new);
        keys.retain(|trusted| !known.contains(&trusted.key));
        if !keys.is_empty() {
            changes.push(KeyChange::Appeared {
                trust_domain: trust_domain.clone(),
                keys,
                concerned: distrust::concerned(after, trust_domain, trust_domain),
            });
        }
        let kept: BTreeSet<_> = new.keys().collect();
        let own = after.distrust.get(trust_domain);
        let revoked = |key: &KeyId| {
            own.is_some_and(|own| own.standing(trust_domain, key) == KeyStanding::Revoked)
        };
        let gone: BTreeSet<_> = old
            .keys()
            .filter(|key| !kept.contains(key) && !revoked(key))
            .collect();
        if let Some(live_until) = bundles.live_until(trust_domain, &gone) {
            changes.push(KeyChange::Vanished {
                trust_domain: trust_domain.clone(),
                keys: gone.into_iter().collect(),
                concerned: distrust::concerned(after, trust_domain, trust_domain),
                live_until,
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        federation::impact::Published,
        model::{
            bundle::{self, Bundle},
            distrust::Revocation,
        },
    };

    fn usable(bundle: &Bundle) -> Published {
        Published::Usable(Box::new(bundle.clone()))
    }

    fn name(text: &str) -> TrustDomain {
        TrustDomain::parse(text).unwrap()
    }

    /// `a.test`, of cluster-1, trusts `b.test`, of cluster-2; `entries` are `by`'s.
    fn declarations(by: &str, revoked: &[(KeyId, i64)], lifted: &[(KeyId, i64)]) -> Declarations {
        let spec = |cluster: &str, peer: &str| {
            let spec = json!({
                "clusters": [{"name": cluster}], "signers": [], "bundleEndpoint": "none",
                "spire": {"distribution": "custom", "namespace": "s", "className": "c"},
                "consent": {"import": [peer], "export": [peer]},
            });
            serde_json::from_value(spec).unwrap()
        };
        let edges = json!({"edges": [{"from": "a.test", "to": "b.test"}]});
        let entries = |entries: &[(KeyId, i64)]| {
            let entry = |(key, second): &(KeyId, i64)| Revocation {
                trust_domain: name("b.test"),
                key: key.clone(),
                reason: "r".to_owned(),
                time: Timestamp::from_second(*second).unwrap(),
            };
            entries.iter().map(entry).collect()
        };
        let distrust = DistrustSpec {
            revoked: entries(revoked),
            unrevoked: entries(lifted),
        };
        Declarations {
            topology: serde_json::from_value(edges).unwrap(),
            trust_domains: BTreeMap::from([
                (name("a.test"), spec("cluster-1", "b.test")),
                (name("b.test"), spec("cluster-2", "a.test")),
            ]),
            distrust: BTreeMap::from([(name(by), distrust)]),
            ..Declarations::default()
        }
    }

    #[track_caller]
    fn check(before: &Declarations, after: &Declarations, bundles: &Bundles, expected: &[&str]) {
        let changes = super::super::impact(before, after, bundles);
        let words: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn what_a_file_says_about_keys_is_told() {
        let bundle = bundle::sample("b.test");
        let key = bundle.x509_authorities[0].id();
        let short = bundle.x509_authorities[0].key.short();
        let ends = bundle.x509_authorities[0].not_after;
        let now =
            |files: &[(KeyId, i64)], lifted: &[(KeyId, i64)]| declarations("b.test", files, lifted);
        let one = [(key.clone(), 1)];
        let (nothing, revoked) = (now(&[], &[]), now(&one, &[]));
        let lifted = now(&one, &[(key.clone(), 2)]);
        let unknown = Bundles::default();
        let taken_back = format!(
            "b.test revokes X.509 key {short}: the workloads of cluster-1 (a.test) refuse at once what \
             it signed"
        );
        check(&nothing, &revoked, &unknown, &[&taken_back]);
        check(&lifted, &revoked, &unknown, &[&taken_back]);
        let known = Bundles {
            after: BTreeMap::from([(name("b.test"), usable(&bundle))]),
            ..Bundles::default()
        };
        let all = format!(
            "{taken_back}; SVIDs signed by it may live until {ends}; no X.509 authority of b.test is \
             left: everything of b.test is distrusted at once"
        );
        check(&nothing, &revoked, &known, &[&all]);
        let again = format!(
            "b.test accepts X.509 key {short} again: the workloads of cluster-1 (a.test) believe \
             what it signed, where a bundle holds it and they have not revoked it themselves"
        );
        check(&revoked, &lifted, &known, &[&again]);
        let removed = format!(
            "b.test no longer lists X.509 key {short} as revoked: that lifts nothing: clusters \
             remember it; to lift it, write an `unrevoked` entry (trustweave bundle unrevoke)"
        );
        check(&revoked, &nothing, &known, &[&removed]);
        check(&lifted, &nothing, &known, &[]);
        check(&revoked, &revoked, &known, &[]);

        let peers = declarations("a.test", &one, &[]);
        let by_a_peer = taken_back.replace("b.test revokes", "a.test revokes");
        let by_a_peer = by_a_peer.replace(short, &format!("{short} of b.test"));
        check(&nothing, &peers, &unknown, &[&by_a_peer]);
        let mut unreadable = nothing.clone();
        unreadable.distrust_unknown.insert(name("b.test"));
        check(&revoked, &unreadable, &unknown, &[]);
    }

    #[test]
    fn a_key_that_vanishes_early_is_told() {
        let (old, new) = (bundle::sample("b.test"), bundle::sample("b.test"));
        let (key, ends) = (
            old.x509_authorities[0].id(),
            old.x509_authorities[0].not_after,
        );
        let bundles = Bundles {
            before: BTreeMap::from([(name("b.test"), usable(&old))]),
            after: BTreeMap::from([(name("b.test"), usable(&new))]),
            now: Timestamp::UNIX_EPOCH,
        };
        let nothing = declarations("b.test", &[], &[]);
        let told = format!(
            "b.test no longer publishes {key}: SVIDs signed by it may live until {ends}, and the \
             workloads of cluster-1 (a.test) refuse them"
        );
        let (appeared, until) = (
            new.x509_authorities[0].id(),
            new.x509_authorities[0].not_after,
        );
        let appeared = format!(
            "b.test publishes a new key: {appeared} (valid until {until}); the workloads of \
             cluster-1 (a.test) will accept SVIDs signed by it"
        );
        check(&nothing, &nothing, &bundles, &[&appeared, &told]);
        let revoked = declarations("b.test", &[(key, 1)], &[]);
        check(&revoked, &revoked, &bundles, &[&appeared]);
        let late = Bundles {
            now: ends,
            ..bundles
        };
        check(&nothing, &nothing, &late, &[&appeared]);
    }
}
