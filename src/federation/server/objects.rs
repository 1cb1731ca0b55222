//! The way of the distributions `custom` and `helm`: the agent writes the objects themselves.

use serde_json::{Value, json};

use super::{
    Decision, Facts, Installation, Memory, Piece, SERVER_CONFIGURED, Step, Wanted, Write,
    config::{ServerConf, Unusable},
    configuration, exposure, rollout, section, survival,
};
use crate::model::manifest::{Gvk, ObjectRef};

/// What a decision looks at.
pub(super) fn reads(installation: &Installation, wanted: Option<&Wanted>) -> Vec<ObjectRef> {
    let mut references = vec![
        config_map(installation),
        stateful_set(installation),
        first_pod(installation),
    ];
    references.extend(wanted.into_iter().flat_map(exposure::references));
    references
}

fn namespaced(installation: &Installation, api_version: &str, kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        gvk: Gvk::new(api_version, kind),
        namespace: Some(installation.namespace.clone()),
        name: name.to_owned(),
    }
}

/// The `ConfigMap` with the server's configuration.
pub(super) fn config_map(installation: &Installation) -> ObjectRef {
    namespaced(
        installation,
        "v1",
        "ConfigMap",
        &installation.server.config_map,
    )
}

/// The server's `StatefulSet`.
pub(super) fn stateful_set(installation: &Installation) -> ObjectRef {
    let name = &installation.server.stateful_set;
    namespaced(installation, "apps/v1", "StatefulSet", name)
}

/// The pod that is replaced last: once it is, all are.
pub(super) fn first_pod(installation: &Installation) -> ObjectRef {
    let name = format!("{}-0", installation.server.stateful_set);
    namespaced(installation, "v1", "Pod", &name)
}

/// The server's own objects, as they were read.
pub(super) struct Reading<'a> {
    pub(super) config_map: &'a Value,
    pub(super) conf: ServerConf<'a>,
    pub(super) stateful_set: &'a Value,
    pub(super) pod: Option<&'a Value>,
}

/// Why the server's objects can't be worked with.
pub(super) struct Unfit {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl<'a> Reading<'a> {
    pub(super) fn of(facts: &Facts<'a>, installation: &Installation) -> Result<Self, Unfit> {
        let absent = |what: String| Unfit {
            reason: "NotFound",
            message: format!(
                "there is {what}: say in `spire.server` what the server's objects are called"
            ),
        };
        let reference = config_map(installation);
        let map = facts.live.get(&reference);
        let map = map.ok_or_else(|| absent(format!("no {reference}")))?;
        let key = &installation.server.config_key;
        let text = map["data"][key].as_str();
        let text = text.ok_or_else(|| absent(format!("no key `{key}` in {reference}")))?;
        let set_reference = stateful_set(installation);
        let set = facts.live.get(&set_reference);
        let set = set.ok_or_else(|| absent(format!("no {set_reference}")))?;
        let name = &installation.server.container;
        if rollout::container(set, name).is_none() {
            return Err(absent(format!("no container `{name}` in {set_reference}")));
        }
        let conf = ServerConf::parse(text).map_err(|error| match error {
            Unusable::Hcl => {
                let advice = match facts.wanted {
                    Some(wanted) => format!(
                        "; write it as JSON, or put `{}` into `server` yourself, and restart the server",
                        section::as_hcl(wanted)
                    ),
                    None => String::new(),
                };
                Unfit {
                    reason: "HclConfiguration",
                    message: format!("{reference}: {error}{advice}"),
                }
            }
            _ => Unfit {
                reason: "UnreadableConfiguration",
                message: format!("{reference}: {error}: it is not touched"),
            },
        })?;
        Ok(Self {
            config_map: map,
            conf,
            stateful_set: set,
            pod: facts.live.get(&first_pod(installation)),
        })
    }

    /// Why the server must not be restarted.
    pub(super) fn refusal(&self, facts: &Facts<'_>, installation: &Installation) -> Option<Unfit> {
        if facts.accept_data_loss {
            return None;
        }
        let container = &installation.server.container;
        let losses = survival::losses(self.conf.document(), self.stateful_set, container);
        (!losses.is_empty()).then(|| Unfit {
            reason: "RestartRefused",
            message: format!(
                "the server is neither configured nor restarted, as a restart would lose {}: its \
                 agents and workloads would have to be attested and registered anew, and peers would \
                 refuse its new keys until they have them; put that on a volume that outlives the \
                 pod, or declare `acceptDataLoss: true`",
                losses.join("; ")
            ),
        })
    }
}

/// Keeps everything as declared.
pub(super) fn manage(facts: &Facts<'_>, wanted: &Wanted) -> Decision {
    let mut decision = Decision {
        memory: facts.memory.clone(),
        ..Decision::default()
    };
    decision.memory.installation = Some(wanted.installation.clone());
    match Reading::of(facts, &wanted.installation) {
        Err(unfit) => decision.tell(SERVER_CONFIGURED, false, unfit.reason, unfit.message),
        Ok(reading) => {
            configuration::notes(&reading, wanted, &mut decision);
            if let Ok(stamp) = configuration::manage(facts, wanted, &reading, &mut decision) {
                rollout::manage(facts, wanted, &reading, stamp.as_deref(), &mut decision);
            }
        }
    }
    exposure::manage(facts, wanted, &mut decision);
    decision
}

/// Gives everything back: what we made goes, and what we changed is as it was.
pub(super) fn release(facts: &Facts<'_>, installation: &Installation) -> Decision {
    let mut decision = Decision::to_give_back(facts.memory);
    exposure::release(facts, &mut decision);
    let config_map = facts.live.get(&config_map(installation));
    let touched = config_map.is_some_and(configuration::is_touched);
    let set = facts.live.get(&stateful_set(installation));
    let held = set.is_some_and(rollout::is_held);
    if touched || held {
        match Reading::of(facts, installation) {
            Err(unfit) => decision.tell(SERVER_CONFIGURED, false, unfit.reason, unfit.message),
            Ok(reading) => {
                if let Some(unfit) = reading.refusal(facts, installation) {
                    decision.tell(SERVER_CONFIGURED, false, unfit.reason, unfit.message);
                } else {
                    configuration::release(installation, &reading, &mut decision);
                    rollout::release(installation, &reading, &mut decision);
                    decision.tell(
                        SERVER_CONFIGURED,
                        None,
                        "GivenBack",
                        "the server is no longer managed: what was there before comes back",
                    );
                }
            }
        }
    }
    if decision.steps.is_empty() && decision.conditions.is_empty() {
        // Nothing of ours is left: the next declaration starts afresh.
        decision.memory = Memory {
            resumed: facts.memory.resumed.clone(),
            ..Memory::default()
        };
    }
    decision
}

/// A step that gives something back.
pub(super) fn giving_back(piece: Piece, write: Write, why: String, restarts: bool) -> Step {
    Step {
        piece,
        write,
        why,
        restarts,
        asked: None,
        undone: None,
    }
}

/// An object with nothing but its identity.
pub(super) fn bare(reference: &ObjectRef) -> Value {
    json!({
        "apiVersion": reference.gvk.api_version(),
        "kind": reference.gvk.kind,
        "metadata": {"name": reference.name, "namespace": reference.namespace},
    })
}
