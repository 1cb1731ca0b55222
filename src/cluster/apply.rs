//! Reading and writing objects.

use std::{collections::BTreeSet, time::Duration};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::Value;

use super::{
    Cluster, Conflicts, Error, Happening, KubeCluster, Mode, REQUEST_DEADLINE, observe::Watched,
    refusal,
};
use crate::model::manifest::{FIELD_MANAGER, Gvk, ObjectRef};

/// How long a definition may take until its kind is served.
const ESTABLISH_DEADLINE: Duration = Duration::from_secs(30);

/// How many objects one page of a list has.
const PAGE: u32 = 500;

/// Runs a request under a deadline.
pub(super) async fn within<T>(
    deadline: Duration,
    verb: &'static str,
    what: String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, request).await {
        Ok(result) => result.map_err(|error| Error::from_kube(verb, what, error)),
        Err(_) => Err(Error::Timeout {
            verb,
            what,
            deadline,
        }),
    }
}

fn reference_of(object: &Value) -> Result<ObjectRef, Error> {
    ObjectRef::of(object).ok_or(Error::NotAnObject)
}

fn to_value(object: &DynamicObject, gvk: &Gvk) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    // Items of a list do not say what they are.
    value["apiVersion"] = gvk.api_version().into();
    value["kind"] = gvk.kind.clone().into();
    value
}

impl KubeCluster {
    /// Runs a request under the deadline, as the identity, once the server is to be asked again.
    async fn ask<T>(
        &self,
        verb: &'static str,
        what: String,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        self.throttle.wait().await;
        let answer = within(REQUEST_DEADLINE, verb, what, request).await;
        if let Err(error) = &answer
            && let Some(pause) = error.retry_after()
        {
            self.throttle.pause(pause);
        }
        answer.map_err(|error| self.attributed(error))
    }

    async fn patch(
        &self,
        object: &Value,
        parameters: PatchParams,
        status: bool,
    ) -> Result<Value, Error> {
        let reference = reference_of(object)?;
        let api = self.api_of(&reference).await?;
        if !parameters.dry_run {
            self.fence.check()?;
        }
        let patch = Patch::Apply(object);
        let what = reference.to_string();
        let patched = if status {
            let request = api.patch_status(&reference.name, &parameters, &patch);
            self.ask("apply the status of", what, request).await
        } else {
            let request = api.patch(&reference.name, &parameters, &patch);
            self.ask("apply", what, request).await
        };
        match patched {
            Ok(applied) => Ok(to_value(&applied, &reference.gvk)),
            Err(error) => {
                if error.is_not_found() {
                    self.forget(&reference.gvk);
                }
                let Error::Api { status, .. } = &error else {
                    return Err(error);
                };
                Err(refusal::explained(&reference, status).unwrap_or(error))
            }
        }
    }
}

impl Cluster for KubeCluster {
    async fn uid(&self) -> Result<String, Error> {
        let namespace = ObjectRef {
            gvk: Gvk::new("v1", "Namespace"),
            namespace: None,
            name: "kube-system".to_owned(),
        };
        let found = self.get(&namespace).await?.unwrap_or_default();
        found["metadata"]["uid"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::Connect("the namespace kube-system has no UID".to_owned()))
    }

    async fn preferred(&self, group_kind: &str) -> Result<Option<Gvk>, Error> {
        self.preferred_kind(group_kind).await
    }

    async fn locate(&self, object: &mut Value) -> Result<(), Error> {
        let reference = reference_of(object)?;
        let resource = self.resource(&reference.gvk).await?;
        match (resource.namespaced, &reference.namespace) {
            (true, None) => Err(Error::NoNamespace(Box::new(reference))),
            (true, Some(_)) => Ok(()),
            (false, _) => {
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("namespace");
                }
                Ok(())
            }
        }
    }

    async fn get(&self, reference: &ObjectRef) -> Result<Option<Value>, Error> {
        let api = self.api_of(reference).await?;
        let request = api.get_opt(&reference.name);
        let found = self.ask("get", reference.to_string(), request).await?;
        Ok(found.map(|object| to_value(&object, &reference.gvk)))
    }

    async fn list(&self, gvk: &Gvk, label: Option<(&str, &str)>) -> Result<Vec<Value>, Error> {
        let resource = self.resource(gvk).await?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource.api);
        let mut parameters = ListParams::default().limit(PAGE);
        if let Some((name, value)) = label {
            parameters = parameters.labels(&format!("{name}={value}"));
        }
        let mut objects = Vec::new();
        loop {
            let request = api.list(&parameters);
            let page = match self.ask("list", gvk.group_kind(), request).await {
                Ok(page) => page,
                Err(error) => {
                    if error.is_not_found() {
                        self.forget(gvk);
                        return Err(Error::UnknownKind(gvk.clone()));
                    }
                    return Err(error);
                }
            };
            objects.extend(page.items.iter().map(|object| to_value(object, gvk)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    async fn apply(
        &self,
        object: &Value,
        conflicts: Conflicts,
        mode: Mode,
    ) -> Result<Value, Error> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
        parameters.force = conflicts == Conflicts::Take;
        parameters.dry_run = mode == Mode::DryRun;
        self.patch(object, parameters, false).await
    }

    async fn could_create(&self, object: &Value) -> Result<(), Error> {
        let reference = reference_of(object)?;
        let api = self.api_of(&reference).await?;
        let mut other = object.clone();
        if let Some(metadata) = other["metadata"].as_object_mut() {
            metadata.remove("name");
            metadata.insert("generateName".to_owned(), "trustweave-dry-run-".into());
        }
        let unreadable = |_| Error::NotAnObject;
        let other: DynamicObject = serde_json::from_value(other).map_err(unreadable)?;
        let parameters = PostParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.to_owned()),
        };
        let request = api.create(&parameters, &other);
        let what = reference.to_string();
        let created = self.ask("try to make anew", what, request).await;
        created.map(drop)
    }

    async fn edit(&self, reference: &ObjectRef, patch: &Value) -> Result<Value, Error> {
        let api = self.api_of(reference).await?;
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        self.fence.check()?;
        let request = api.patch(&reference.name, &parameters, &patch);
        let edited = self.ask("edit", reference.to_string(), request).await?;
        Ok(to_value(&edited, &reference.gvk))
    }

    async fn record_owners(&self, live: &Value, managed_fields: &Value) -> Result<Value, Error> {
        let reference = reference_of(live)?;
        let api = self.api_of(&reference).await?;
        let patch = serde_json::json!({"metadata": {
            "resourceVersion": live["metadata"]["resourceVersion"],
            "managedFields": managed_fields,
        }});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        self.fence.check()?;
        let request = api.patch(&reference.name, &parameters, &patch);
        let written = self
            .ask("record the owners of", reference.to_string(), request)
            .await?;
        Ok(to_value(&written, &reference.gvk))
    }

    async fn apply_status(&self, object: &Value) -> Result<Value, Error> {
        let parameters = PatchParams::apply(FIELD_MANAGER)
            .validation_strict()
            .force();
        self.patch(object, parameters, true).await
    }

    async fn delete(&self, live: &Value) -> Result<(), Error> {
        let reference = reference_of(live)?;
        let api = self.api_of(&reference).await?;
        self.fence.check()?;
        let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid,
            resource_version: None,
        });
        let request = api.delete(&reference.name, &parameters);
        match self.ask("delete", reference.to_string(), request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn established(&self, crd: &Value) -> Result<(), Error> {
        let spec = &crd["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kinds: Vec<_> = spec["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|version| version["served"] != false)
            .map(|version| Gvk {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&spec["names"]["kind"]),
            })
            .collect();
        let deadline = tokio::time::Instant::now() + ESTABLISH_DEADLINE;
        for gvk in kinds {
            // `Established` does not mean that discovery knows it: only discovery does.
            while let Err(error) = self.resource(&gvk).await {
                if !error.is_retryable() || tokio::time::Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn announce(&self, happening: Happening) {
        self.record(happening).await;
    }

    fn watch(&self, kinds: &BTreeSet<Watched>) {
        self.observer.watch(kinds);
    }

    async fn changed(&self) {
        self.observer.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use kube::{Config, api::ApiResource};
    use serde_json::json;

    use super::*;
    use crate::cluster::lease::Fence;

    /// A cluster that knows what a ConfigMap is, at an address where nobody listens.
    fn unreachable(fence: Fence) -> KubeCluster {
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let cluster = KubeCluster::new(config, false, fence).unwrap();
        let gvk = kube::core::GroupVersionKind::gvk("", "v1", "ConfigMap");
        let api = ApiResource::from_gvk(&gvk);
        cluster.know(&Gvk::new("v1", "ConfigMap"), api, true);
        cluster
    }

    #[tokio::test]
    async fn nothing_is_written_while_the_lease_is_not_held() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n", "uid": "u"},
        });
        let apply = async |cluster: &KubeCluster, mode| {
            let applied = cluster.apply(&object, Conflicts::Report, mode).await;
            applied.unwrap_err()
        };
        let standby = unreachable(Fence::closed());
        for error in [
            apply(&standby, Mode::Persist).await,
            standby.apply_status(&object).await.unwrap_err(),
            standby.delete(&object).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::NotHeld(_)), "{error}");
        }
        // It would be asked otherwise: by who leads, and for what is no write.
        let dry = apply(&standby, Mode::DryRun).await;
        assert!(matches!(dry, Error::Request { .. }), "{dry}");
        let leader = apply(&unreachable(Fence::open()), Mode::Persist).await;
        assert!(matches!(leader, Error::Request { .. }), "{leader}");
    }
}
