//! The `ConfigMap` with the server's configuration: when it is written, and what it remembers.
//!
//! It remembers in annotations that are written with the configuration itself: what was there
//! before, and which restart that change needs.

use serde_json::{Value, json};

use super::{
    CONFIGURATION_SPELT, Decision, Draft, Facts, Installation, Piece, SERVER_CONFIGURED,
    STATIC_FEDERATION, Wanted, Write,
    config::{self, Misspelt},
    objects::{self, Reading},
    rollout,
    section::{self, Statically},
};
use crate::model::{bundle::Digest, field_owners::last_other_writer};

/// The agent's, on the SPIRE server's `ConfigMap`: what `server.federation` was before the agent wrote it,
/// as JSON; `null` if there was none.
const FORMER: &str = "trustweave.dev/former-federation";

/// The agent's, on the SPIRE server's `ConfigMap`: the stamp of the restart that its last change needs.
const STAMP: &str = "trustweave.dev/server-config";

/// The agent's, on the SPIRE server's `ConfigMap`: that `federates_with` is the agent's.
const STATIC: &str = "trustweave.dev/static-federation";

/// Whether the agent changed the configuration.
pub(super) fn is_touched(config_map: &Value) -> bool {
    annotation(config_map, FORMER).is_some()
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

fn former(config_map: &Value) -> Option<Value> {
    let text = annotation(config_map, FORMER)?;
    serde_json::from_str(text)
        .ok()
        .filter(|it| *it != Value::Null)
}

fn misspelt(reading: &Reading<'_>) -> Misspelt {
    let federation = reading.conf.federation();
    federation.map(Misspelt::in_section).unwrap_or_default()
}

/// Tells of what is in the configuration besides what was asked for, and matters.
pub(super) fn notes(reading: &Reading<'_>, wanted: &Wanted, decision: &mut Decision) {
    let federation = reading.conf.federation();
    let misspelt = misspelt(reading);
    let mut told = Vec::new();
    if !misspelt.dropped.is_empty() {
        told.push(format!(
            "drops {} without a word",
            misspelt.dropped.join(", ")
        ));
    }
    if !misspelt.fatal.is_empty() {
        told.push(format!("does not start with {}", misspelt.fatal.join(", ")));
    }
    if !told.is_empty() {
        let message = format!("of `server.federation`, SPIRE {}", told.join(", and "));
        decision.tell(CONFIGURATION_SPELT, false, "UnknownNames", message);
    }
    decision.memory.static_names = config::static_names(federation);
    shadowed(
        "`federates_with` in the server's own configuration",
        wanted,
        decision,
    );
}

/// Tells of trust domains that stand at a place where relationships are outranked from, if that is not
/// declared.
pub(super) fn shadowed(place: &str, wanted: &Wanted, decision: &mut Decision) {
    let names = &decision.memory.static_names;
    if wanted.static_peers.is_none() && !names.is_empty() {
        let message = format!(
            "{place} names {}: the URL there outranks what is declared, and keys of theirs that are \
             taken away come back from it; take them out, or declare `staticFederatesWith: true`",
            names.join(", ")
        );
        decision.tell(STATIC_FEDERATION, false, "Shadowed", message);
    }
}

/// The configuration is not as declared, and a condition says why.
pub(super) struct Told;

/// Keeps the configuration as declared. What is returned is the stamp that the pods should carry,
/// if a change of ours ever needed one.
pub(super) fn manage(
    facts: &Facts<'_>,
    wanted: &Wanted,
    reading: &Reading<'_>,
    decision: &mut Decision,
) -> Result<Option<String>, Told> {
    let map = reading.config_map;
    let former = former(map);
    let statically = if wanted.static_peers.is_some() {
        Statically::Declared
    } else if annotation(map, STATIC).is_some() {
        Statically::Former(former.as_ref().and_then(|it| it.get("federates_with")))
    } else {
        Statically::Standing
    };
    let current = reading.conf.federation();
    let Ok(target) = section::target(current, wanted, statically) else {
        decision.tell(
            SERVER_CONFIGURED,
            false,
            "NoCertificate",
            "the profile `https_web` needs a certificate, which no declaration names: put `acme` or \
             `serving_cert_file` below `profile \"https_web\"` of `bundle_endpoint` in the server's \
             configuration yourself; the agent keeps the rest",
        );
        return Err(Told);
    };
    let recorded = annotation(map, STAMP);
    if current == Some(&target) {
        return Ok(recorded.map(str::to_owned));
    }
    let misspelt = misspelt(reading).fatal;
    if !misspelt.is_empty() {
        let message = format!(
            "the server is not restarted, as SPIRE does not start with {} in `server.federation`: \
             correct it",
            misspelt.join(", ")
        );
        decision.tell(SERVER_CONFIGURED, false, "WouldNotStart", message);
        return Err(Told);
    }
    if let Some(unfit) = reading.refusal(facts, &wanted.installation) {
        decision.tell(SERVER_CONFIGURED, false, unfit.reason, unfit.message);
        return Err(Told);
    }

    let installation = &wanted.installation;
    let key = &installation.server.config_key;
    let field = format!("f:{key}");
    let path = ["f:data", field.as_str()];
    let stamp = stamp(&target, recorded, reading, installation, &path);
    let mut annotations = json!({STAMP: stamp});
    if !is_touched(map) {
        annotations[FORMER] = current.unwrap_or(&Value::Null).to_string().into();
    }
    match statically {
        Statically::Declared
            if current.and_then(|it| it.get("federates_with")) != target.get("federates_with") =>
        {
            annotations[STATIC] = "true".into();
        }
        Statically::Former(_) => annotations[STATIC] = Value::Null,
        Statically::Declared | Statically::Standing => {}
    }
    let reference = objects::config_map(installation);
    let written = decision.write(
        facts,
        SERVER_CONFIGURED,
        Draft {
            piece: Piece::Configuration,
            object: &reference,
            live: Some(map),
            path: &path,
            asked: section::asked(wanted),
            write: Write::Edit {
                reference: reference.clone(),
                patch: json!({
                    "metadata": {
                        "resourceVersion": map["metadata"]["resourceVersion"],
                        "annotations": annotations,
                    },
                    "data": {key: reading.conf.with_federation(Some(&target))},
                }),
            },
            why: format!("wrote server.federation in {reference}"),
            restarts: false,
        },
    );
    if written { Ok(Some(stamp)) } else { Err(Told) }
}

/// What marks the pods that were started with a configuration: the same for the same meaning. A
/// server that was started while another one stood there needs a restart of its own.
fn stamp(
    target: &Value,
    recorded: Option<&str>,
    reading: &Reading<'_>,
    installation: &Installation,
    path: &[&str],
) -> String {
    let mut canonical = target.clone();
    canonical.sort_all_objects();
    let digest = Digest::of(canonical.to_string().as_bytes());
    let recorded = recorded.filter(|it| it.split('.').next() == Some(digest.short()));
    let Some(recorded) = recorded else {
        return digest.short().to_owned();
    };
    let changed = last_other_writer(reading.config_map, path).map(|(_, at)| at);
    let container = &installation.server.container;
    let started = reading.pod.and_then(|pod| rollout::started(pod, container));
    match (started, changed) {
        (Some(started), Some(changed)) if started >= changed => {
            let times: u32 = recorded
                .split_once('.')
                .and_then(|(_, times)| times.parse().ok())
                .unwrap_or(0);
            format!("{}.{}", digest.short(), times + 1)
        }
        _ => recorded.to_owned(),
    }
}

/// Writes back what was there before.
pub(super) fn release(installation: &Installation, reading: &Reading<'_>, decision: &mut Decision) {
    let map = reading.config_map;
    if !is_touched(map) {
        return;
    }
    let former = former(map);
    let key = &installation.server.config_key;
    let reference = objects::config_map(installation);
    let patch = json!({
        "metadata": {
            "resourceVersion": map["metadata"]["resourceVersion"],
            "annotations": {FORMER: null, STAMP: null, STATIC: null},
        },
        "data": {key: reading.conf.with_federation(former.as_ref())},
    });
    decision.steps.push(objects::giving_back(
        Piece::Configuration,
        Write::Edit {
            reference: reference.clone(),
            patch,
        },
        format!("wrote back what server.federation in {reference} was"),
        false,
    ));
}
