//! The SPIRE server and its controller manager.

use jiff::Timestamp;
use serde_json::Value;

use super::{About, Amiss, Check, ClusterFacts, Level, Seen};
use crate::{
    federation::{
        installation::meaning::{items, name},
        server::{
            config::{Misspelt, ServerConf, Unusable},
            survival,
        },
    },
    model::{bundle::Bundle, diagnostic::Severity},
};

pub(super) const CHECKS: &[Check<ClusterFacts>] = &[
    Check {
        about: About {
            id: "server-found",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "one SPIRE server runs in the cluster",
            why: "nothing else can be checked without knowing the server",
            cure: "say which server is meant with --namespace, or install SPIRE",
        },
        look: found,
    },
    Check {
        about: About {
            id: "kinds-installed",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "the kinds of SPIRE's controller manager are installed",
            why: "trust domains federate by ClusterFederatedTrustDomain, and workloads by ClusterSPIFFEID",
            cure: "install the CustomResourceDefinitions of spire-controller-manager",
        },
        look: kinds,
    },
    Check {
        about: About {
            id: "server-ready",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "the server's pods are ready, and the controller manager with them",
            why: "while the server is down nobody gets an identity; while the controller manager is down \
                  nothing that is written takes effect",
            cure: "look at the pod: `kubectl describe pod`, and the logs of the container that is named",
        },
        look: ready,
    },
    Check {
        about: About {
            id: "configuration-read",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "the server's configuration can be read",
            why: "what is configured can't be checked, nor managed",
            cure: "keep it as JSON in a ConfigMap that the server's StatefulSet mounts, as all distributions do",
        },
        look: configuration,
    },
    Check {
        about: About {
            id: "configuration-spelt",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "every name below `federation` in the server's configuration is one that SPIRE knows",
            why: "SPIRE drops a misspelt name there without a word, or does not start",
            cure: "correct the name, and restart the server",
        },
        look: spelling,
    },
    Check {
        about: About {
            id: "configuration-in-force",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "the server was started after its configuration was changed last",
            why: "SPIRE reads its configuration once, when it starts: a change waits for a restart",
            cure: "`kubectl rollout restart statefulset`, or let the agent manage the endpoint \
                   (`bundleEndpoint.manage: true`), which restarts once for each change",
        },
        look: in_force,
    },
    Check {
        about: About {
            id: "server-survives-restart",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "a restart of the server loses neither its datastore nor its keys",
            why: "a lost datastore loses every peer's bundle and every entry; lost keys are a new trust \
                  domain under the old name, which peers must be told",
            cure: "keep both on a PersistentVolumeClaim, or in a database and a key management service",
        },
        look: survives,
    },
    Check {
        about: About {
            id: "relationships-reconciled",
            level: Level::Cluster,
            severity: Severity::Error,
            title: "the controller manager reconciles ClusterFederatedTrustDomains",
            why: "otherwise all of them are ignored, without a word",
            cure: "set `reconcile.clusterFederatedTrustDomains: true` in its configuration, and restart it",
        },
        look: reconciled,
    },
    Check {
        about: About {
            id: "own-bundle-kept",
            level: Level::Cluster,
            severity: Severity::Warning,
            title: "the ConfigMap in which SPIRE publishes its own bundle is there and up to date",
            why: "the agent reads the bundle there; if somebody else wrote it, SPIRE never writes it again",
            cure: "delete the ConfigMap and restart the server: SPIRE writes it anew",
        },
        look: published,
    },
];

fn found(facts: &ClusterFacts) -> Seen {
    match facts.installation() {
        Ok(_) => Seen::Well,
        Err(why) => Seen::Amiss(vec![Amiss::new("SPIRE server", why)]),
    }
}

fn kinds(facts: &ClusterFacts) -> Seen {
    let missing = facts.missing_kinds.iter();
    let amiss = missing.map(|kind| Amiss::new(kind, "the cluster does not have this kind"));
    amiss.collect::<Vec<_>>().into()
}

fn ready(facts: &ClusterFacts) -> Seen {
    let Ok((candidate, _)) = facts.installation() else {
        return unfound();
    };
    let mut amiss = Vec::new();
    let mut pods = 0;
    for pod in facts.server_pods() {
        pods += 1;
        let told: Vec<&Value> = items(&pod["status"]["containerStatuses"]).collect();
        for status in &told {
            if status["ready"] == true {
                continue;
            }
            let waiting = &status["state"]["waiting"];
            let ended = &status["state"]["terminated"];
            let reason = [&waiting["reason"], &ended["reason"]];
            let reason = reason.into_iter().find_map(Value::as_str);
            let container = status["name"].as_str().unwrap_or_default();
            amiss.push(Amiss::new(
                format!("Pod {}/{}", candidate.namespace, name(pod)),
                format!(
                    "container {container} is not ready{}",
                    reason.map_or_else(String::new, |it| format!(": {it}"))
                ),
            ));
        }
        if told.is_empty() {
            let phase = pod["status"]["phase"].as_str().unwrap_or("unknown");
            amiss.push(Amiss::new(
                format!("Pod {}/{}", candidate.namespace, name(pod)),
                format!("no container of it was started; its phase is {phase}"),
            ));
        }
    }
    if pods == 0 {
        amiss.push(Amiss::new(
            format!(
                "StatefulSet {}/{}",
                candidate.namespace, candidate.stateful_set
            ),
            "it has no pod",
        ));
    }
    amiss.into()
}

fn configuration(facts: &ClusterFacts) -> Seen {
    let Ok((candidate, _)) = facts.installation() else {
        return unfound();
    };
    let subject = || {
        format!(
            "StatefulSet {}/{}",
            candidate.namespace, candidate.stateful_set
        )
    };
    let Some((config_map, text)) = facts.server_configuration() else {
        return Seen::Amiss(vec![Amiss::new(
            subject(),
            format!(
                "no ConfigMap that it mounts has the key {}",
                candidate.config_file
            ),
        )]);
    };
    let problem = match ServerConf::parse(text) {
        Ok(_) => return Seen::Well,
        Err(Unusable::Hcl) => "it is HCL, which is not read".to_owned(),
        Err(other) => other.to_string(),
    };
    Seen::Amiss(vec![Amiss::new(super::named(config_map), problem)])
}

fn spelling(facts: &ClusterFacts) -> Seen {
    with_configuration(facts, |config_map, configuration| {
        let Some(federation) = configuration.federation() else {
            return Seen::Well;
        };
        let misspelt = Misspelt::in_section(federation);
        let subject = super::named(config_map);
        let dropped = misspelt
            .dropped
            .into_iter()
            .map(|name| Amiss::new(&subject, format!("SPIRE drops {name} without a word")));
        let fatal = misspelt.fatal.into_iter();
        let fatal =
            fatal.map(|name| Amiss::new(&subject, format!("SPIRE does not start with {name}")));
        dropped.chain(fatal).collect::<Vec<_>>().into()
    })
}

/// A server's container that runs since before the last write of its configuration has not read it.
fn in_force(facts: &ClusterFacts) -> Seen {
    let (Ok((candidate, _)), Some((config_map, _))) =
        (facts.installation(), facts.server_configuration())
    else {
        return unread();
    };
    let data = |it: &&Value| it["fieldsV1"].get("f:data").is_some();
    let written = items(&config_map["metadata"]["managedFields"]).filter(data);
    let Some(written) = written.filter_map(|it| moment(&it["time"])).max() else {
        return Seen::Unknown("when the configuration was written is not recorded".to_owned());
    };
    let mut amiss = Vec::new();
    let mut started = 0;
    for pod in facts.server_pods() {
        let mut statuses = items(&pod["status"]["containerStatuses"]);
        let status = statuses.find(|it| it["name"] == candidate.container.as_str());
        let at = status.and_then(|it| moment(&it["state"]["running"]["startedAt"]));
        let Some(at) = at.or_else(|| moment(&pod["status"]["startTime"])) else {
            continue;
        };
        started += 1;
        if at < written {
            amiss.push(Amiss::new(
                super::named(config_map),
                format!(
                    "it was written at {written}, and the server in pod {} runs since {at}",
                    name(pod)
                ),
            ));
        }
    }
    if started == 0 {
        return Seen::Unknown("when the server was started is not known".to_owned());
    }
    amiss.into()
}

fn survives(facts: &ClusterFacts) -> Seen {
    let Ok((candidate, _)) = facts.installation() else {
        return unfound();
    };
    let set = facts.objects.stateful_sets.iter().find(|it| {
        let metadata = &it["metadata"];
        metadata["name"] == candidate.stateful_set.as_str()
            && metadata["namespace"] == candidate.namespace.as_str()
    });
    let Some(set) = set else { return unfound() };
    with_configuration(facts, |_, configuration| {
        let losses = survival::losses(configuration.document(), set, &candidate.container);
        let amiss = losses.into_iter();
        let amiss =
            amiss.map(|loss| Amiss::new(super::named(set), format!("a restart loses {loss}")));
        amiss.collect::<Vec<_>>().into()
    })
}

fn reconciled(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let Some(manager) = &installation.controller_manager else {
        return Seen::Unknown("the controller manager's configuration was not found".to_owned());
    };
    let amiss = (!manager.reconciles_relationships).then(|| {
        Amiss::new(
            &manager.place,
            "it has `reconcile.clusterFederatedTrustDomains: false`",
        )
    });
    amiss.into()
}

/// Who writes it beside SPIRE takes its field away from SPIRE's own server-side apply.
fn published(facts: &ClusterFacts) -> Seen {
    let Ok((_, installation)) = facts.installation() else {
        return unfound();
    };
    let Some(published) = &installation.configuration.published else {
        return Seen::Unknown("SPIRE has no BundlePublisher k8s_configmap".to_owned());
    };
    let key = &published.value;
    let subject = format!("ConfigMap {}/{}", key.namespace, key.name);
    let config_map = facts.objects.config_maps.iter().find(|it| {
        it["metadata"]["name"] == key.name.as_str()
            && it["metadata"]["namespace"] == key.namespace.as_str()
    });
    let Some(text) = config_map.and_then(|it| it["data"][&key.key].as_str()) else {
        return Seen::Amiss(vec![Amiss::new(
            subject,
            format!(
                "its key {} is not there, though SPIRE is told to write it",
                key.key
            ),
        )]);
    };
    let mut amiss = Vec::new();
    let field = format!("f:{}", key.key);
    let managers = config_map.map(|it| items(&it["metadata"]["managedFields"]));
    for manager in managers.into_iter().flatten() {
        let who = manager["manager"].as_str().unwrap_or_default();
        if manager["fieldsV1"]["f:data"].get(&field).is_some()
            && who != "spire-bundlepublisher-k8s_configmap"
        {
            amiss.push(Amiss::new(
                &subject,
                format!(
                    "`{who}` wrote the key {}, so SPIRE can't write it any more",
                    key.key
                ),
            ));
        }
    }
    let judged = Bundle::parse(text.as_bytes());
    let problem = match (judged, facts.trust_domain()) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(bundle), Some(own)) => bundle.check(own, facts.now).err().map(|it| it.to_string()),
        (Ok(_), None) => None,
    };
    amiss.extend(problem.map(|problem| Amiss::new(&subject, problem)));
    amiss.into()
}

/// Looks at the server's configuration, if it can be read.
fn with_configuration(
    facts: &ClusterFacts,
    look: impl FnOnce(&Value, &ServerConf<'_>) -> Seen,
) -> Seen {
    let Some((config_map, text)) = facts.server_configuration() else {
        return unread();
    };
    match ServerConf::parse(text) {
        Ok(configuration) => look(config_map, &configuration),
        Err(_) => unread(),
    }
}

pub(super) fn unfound() -> Seen {
    Seen::Unknown("there is not one SPIRE server".to_owned())
}

pub(super) fn unread() -> Seen {
    Seen::Unknown("the server's configuration can't be read".to_owned())
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
