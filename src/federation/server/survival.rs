//! What a restart of the server would lose: a datastore or keys that live no longer than its pod.
//!
//! What can't be known counts as lost: a restart can't be taken back.

use serde_json::{Map, Value};

use super::config::block;

/// What a restart would lose, each in words; empty if nothing.
///
/// `document` is the whole configuration, `stateful_set` the live object, `container` the name of
/// the server's container in it.
pub(in crate::federation) fn losses(
    document: &Value,
    stateful_set: &Value,
    container: &str,
) -> Vec<String> {
    let storage = Storage {
        spec: &stateful_set["spec"],
        container,
    };
    let plugins = block(&document["plugins"]);
    let plugin = |kind: &str| {
        let all = plugins.and_then(|it| block(it.get(kind)?))?;
        let (name, settings) = all.iter().next()?;
        let data = block(settings).and_then(|it| block(it.get("plugin_data")?));
        Some((name.as_str(), data))
    };
    let (store, keys) = (plugin("DataStore"), plugin("KeyManager"));
    let store = match store {
        Some(("sql", data)) => datastore(data, &storage),
        Some(_) => None,
        None => Some("no datastore that can be recognised".to_owned()),
    };
    let keys = match keys {
        Some(("memory", _)) => Some("the authorities' keys are kept in memory".to_owned()),
        Some(("disk", data)) => match data.and_then(|it| it.get("keys_path")?.as_str()) {
            Some(path) => storage
                .loses(path)
                .map(|why| format!("the authorities' keys in {path}: {why}")),
            None => Some("the key manager `disk` names no keys_path".to_owned()),
        },
        // A key management service.
        Some(_) => None,
        None => Some("no key manager that can be recognised".to_owned()),
    };
    store.into_iter().chain(keys).collect()
}

fn datastore(data: Option<&Map<String, Value>>, storage: &Storage<'_>) -> Option<String> {
    let lost = |why: String| Some(format!("the datastore: {why}"));
    let Some(data) = data else {
        return lost("its plugin_data can't be read".to_owned());
    };
    // A block (`aws_mysql`, `aws_postgres`, …) is a database elsewhere, as `mysql` and `postgres` are.
    if data
        .get("database_type")
        .is_none_or(|it| it.as_str() != Some("sqlite3"))
    {
        return None;
    }
    let Some(connection) = data.get("connection_string").and_then(Value::as_str) else {
        return lost("it names no connection_string".to_owned());
    };
    // https://www.sqlite.org/uri.html
    let path = connection.strip_prefix("file:").unwrap_or(connection);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = match path.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => path,
    };
    if path.is_empty() || path.contains(":memory:") || query.contains("mode=memory") {
        return lost("sqlite3 in memory".to_owned());
    }
    storage
        .loses(path)
        .and_then(|why| lost(format!("sqlite3 in {path}: {why}")))
}

/// Where the files of the server's container lie.
struct Storage<'a> {
    spec: &'a Value,
    container: &'a str,
}

impl Storage<'_> {
    /// Why a file does not outlive the pod; `None` if it does.
    fn loses(&self, path: &str) -> Option<String> {
        if !path.starts_with('/') || path.contains('$') || path.contains("/../") {
            return Some("where that lies can't be known".to_owned());
        }
        let template = &self.spec["template"]["spec"];
        let containers = template["containers"].as_array().into_iter().flatten();
        let mut containers = containers.filter(|it| it["name"] == self.container);
        let mounts = containers.next().map(|it| &it["volumeMounts"]);
        let mounts = mounts.and_then(Value::as_array).into_iter().flatten();
        let covers = |mount: &&Value| {
            let at = mount["mountPath"].as_str().unwrap_or_default();
            let below = path.strip_prefix(at.trim_end_matches('/'));
            below.is_some_and(|below| below.starts_with('/'))
        };
        let deepest = mounts
            .filter(covers)
            .max_by_key(|mount| mount["mountPath"].as_str().map_or(0, str::len));
        let Some(volume) = deepest.and_then(|mount| mount["name"].as_str()) else {
            return Some("that is in the container itself, on no volume".to_owned());
        };
        let by_name = |list: &Value, pointer: &str| {
            let items = list.as_array().into_iter().flatten().cloned();
            let mut items = items.filter(|it| it.pointer(pointer).is_some_and(|it| it == volume));
            items.next()
        };
        if by_name(&self.spec["volumeClaimTemplates"], "/metadata/name").is_some() {
            return None;
        }
        let found = by_name(&template["volumes"], "/name");
        let kinds = [
            "persistentVolumeClaim",
            "hostPath",
            "nfs",
            "iscsi",
            "fc",
            "cephfs",
            "rbd",
        ];
        match found {
            Some(found) if kinds.iter().any(|kind| found.get(*kind).is_some()) => None,
            Some(found) if found.get("emptyDir").is_some() => Some(format!(
                "the volume `{volume}` is an emptyDir, which ends with the pod"
            )),
            _ => Some(format!(
                "the volume `{volume}` is not known to outlive the pod"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stateful_set() -> Value {
        json!({"spec": {
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"spec": {
                "volumes": [
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "claimed", "persistentVolumeClaim": {"claimName": "x"}},
                    {"name": "strange", "ephemeral": {}},
                ],
                "containers": [{"name": "other"}, {"name": "spire-server", "volumeMounts": [
                    {"name": "data", "mountPath": "/run/spire/data"},
                    {"name": "scratch", "mountPath": "/run/spire/data/scratch/"},
                    {"name": "claimed", "mountPath": "/claimed"},
                    {"name": "strange", "mountPath": "/strange"},
                ]}],
            }},
        }})
    }

    fn check(store: &Value, keys: &Value, expected: &[&str]) {
        let document = json!({"plugins": {"DataStore": store, "KeyManager": keys}});
        let found = losses(&document, &stateful_set(), "spire-server");
        let fits = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(it, part)| it.contains(part));
        assert!(fits, "{document}: {found:?} is not {expected:?}");
    }

    #[test]
    fn what_lives_on_a_volume_of_its_own_survives() {
        let sqlite = |at: &str| json!([{"sql": {"plugin_data": {"database_type": "sqlite3", "connection_string": at}}}]);
        let disk = |at: &str| json!({"disk": {"plugin_data": {"keys_path": at}}});
        let good = disk("/run/spire/data/keys.json");
        check(&sqlite("/run/spire/data/d.sqlite3"), &good, &[]);
        check(&sqlite("file:/claimed/d?cache=shared"), &good, &[]);
        check(&sqlite("file:///claimed/d"), &good, &[]);
        check(
            &sqlite("/run/spire/data/scratch/d"),
            &good,
            &["`scratch` is an emptyDir"],
        );
        check(&sqlite("/strange/d"), &good, &["`strange` is not known"]);
        check(&sqlite("/run/spire/database"), &good, &["on no volume"]);
        check(&sqlite("/tmp/d"), &good, &["on no volume"]);
        check(&sqlite("d.sqlite3"), &good, &["can't be known"]);
        check(&sqlite("/claimed/$NAME"), &good, &["can't be known"]);
        check(&sqlite("/claimed/../tmp/d"), &good, &["can't be known"]);
        check(&sqlite(":memory:"), &good, &["in memory"]);
        check(&sqlite("file::memory:?cache=shared"), &good, &["in memory"]);
        check(
            &sqlite("file:/claimed/d?mode=memory"),
            &good,
            &["in memory"],
        );
        check(&json!([]), &good, &["no datastore"]);

        let database = |kind: Value| json!([{"sql": {"plugin_data": [{"database_type": kind}]}}]);
        let postgres = database(json!("postgres"));
        check(&postgres, &good, &[]);
        check(&database(json!([{"aws_mysql": {}}])), &good, &[]);
        check(&postgres, &json!([{"memory": {}}]), &["kept in memory"]);
        check(&postgres, &disk("/tmp/keys"), &["on no volume"]);
        check(&postgres, &json!({"disk": {}}), &["no keys_path"]);
        check(&postgres, &json!([{"aws_kms": {}}]), &[]);
        check(
            &sqlite("/tmp/d"),
            &disk("/tmp/keys"),
            &["the datastore: sqlite3 in /tmp/d", "keys in /tmp/keys"],
        );
    }
}
