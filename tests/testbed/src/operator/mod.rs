//! A stand-in for the operator of `OpenShift`'s zero trust workload identity manager.
//!
//! It does to the objects of a SPIRE server what the operator is documented and was read to do: it generates them
//! from `SpireServer` `cluster`, and whenever one of them differs where it looks, it replaces the object as a whole.
//! So whoever edits them by hand, or by server-side apply, loses. In create-only mode it creates what is missing and
//! touches nothing else, upgrades of its own included.

mod objects;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use kube::Client;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::objects::{Desired, MANAGED_BY, desired};
use crate::clock::now;
use crate::cluster::{ClusterSpec, field_manager};
use crate::crds;

/// Under which name the operator's writes are recorded.
pub const FIELD_MANAGER: &str = "zero-trust-workload-identity-manager";

/// On `SpireServer`: create-only mode, before 1.0.
pub const CREATE_ONLY_ANNOTATION: &str = "ztwim.openshift.io/create-only";

const API_VERSION: &str = "operator.openshift.io/v1alpha1";

/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// Which operator is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorVersion {
    /// 0.2: `SpireServer` has no `spec.federation`; create-only mode is an annotation.
    BeforeFederation,
    /// 1.0 and later: it has one; create-only mode is a variable of the operator's environment.
    WithFederation,
}

/// A write of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// `create`, `update` or `status`.
    pub verb: &'static str,
    /// The kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.kind, self.name)
    }
}

/// The operator at work; it ends with this value.
pub struct Operator {
    work: Arc<Work>,
    task: JoinHandle<()>,
}

struct Work {
    client: Client,
    spec: ClusterSpec,
    with_federation: AtomicBool,
    create_only: AtomicBool,
    actions: std::sync::Mutex<Vec<Action>>,
    /// One pass at a time.
    pass: tokio::sync::Mutex<()>,
}

impl Operator {
    /// Installs the operator: its kinds, the objects that an administrator makes, and the operator itself.
    pub(crate) async fn start(
        client: &Client,
        spec: &ClusterSpec,
        version: OperatorVersion,
    ) -> anyhow::Result<Self> {
        let work = Arc::new(Work {
            client: client.clone(),
            spec: spec.clone(),
            with_federation: AtomicBool::new(version == OperatorVersion::WithFederation),
            create_only: AtomicBool::new(false),
            actions: std::sync::Mutex::new(Vec::new()),
            pass: tokio::sync::Mutex::new(()),
        });
        crds::install(client, &objects::kinds(version)?).await?;
        for object in objects::installed(spec, version) {
            work.apply_as_administrator(&object).await?;
        }
        let task = tokio::spawn(Arc::clone(&work).follow());
        Ok(Self { work, task })
    }

    /// Everything that it wrote so far, in order.
    pub fn actions(&self) -> Vec<Action> {
        let actions = self.work.actions.lock();
        actions.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a pass, as the operator does when anything happens and every few hours.
    pub async fn reconcile(&self) -> anyhow::Result<()> {
        self.work.reconcile().await
    }

    /// Sets create-only mode in its environment (1.0 and later; before, see [`CREATE_ONLY_ANNOTATION`]).
    pub async fn set_create_only(&self, create_only: bool) -> anyhow::Result<()> {
        self.work.create_only.store(create_only, Ordering::SeqCst);
        // It starts anew then.
        self.reconcile().await
    }

    /// Upgrades it from 0.2 to 1.0.
    pub async fn upgrade(&self) -> anyhow::Result<()> {
        let version = OperatorVersion::WithFederation;
        crds::install(&self.work.client, &objects::kinds(version)?).await?;
        for object in objects::installed(&self.work.spec, version) {
            if object["kind"] != "SpireServer" {
                self.work.apply_as_administrator(&object).await?;
            }
        }
        self.work.with_federation.store(true, Ordering::SeqCst);
        self.reconcile().await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Work {
    /// A pass for each event of an object that is its own.
    async fn follow(self: Arc<Self>) {
        let own = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        let mut streams = Vec::new();
        for (api_version, kind) in [
            ("v1", "ConfigMap"),
            ("v1", "Service"),
            ("apps/v1", "StatefulSet"),
            ("route.openshift.io/v1", "Route"),
        ] {
            streams.push(watcher(self.api(api_version, kind), own.clone()).boxed());
        }
        let all = watcher::Config::default();
        streams.push(watcher(self.api(API_VERSION, "SpireServer"), all).boxed());
        let mut events = futures::stream::select_all(streams);
        while let Some(event) = events.next().await {
            if event.is_err() {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            while self.reconcile().await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if group == "operator.openshift.io" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.spec.spire_namespace, &resource)
        }
    }

    async fn apply_as_administrator(&self, object: &Value) -> anyhow::Result<()> {
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        self.api(API_VERSION, kind)
            .patch(name, &field_manager(), &Patch::Apply(object))
            .await
            .with_context(|| format!("cannot apply {kind} {name}"))?;
        Ok(())
    }

    async fn reconcile(&self) -> anyhow::Result<()> {
        let _pass = self.pass.lock().await;
        let with_federation = self.with_federation.load(Ordering::SeqCst);
        let servers = self.api(API_VERSION, "SpireServer");
        let Some(server) = servers.get_opt("cluster").await? else {
            return Ok(());
        };
        let server = serde_json::to_value(server)?;
        let create_only = if with_federation {
            self.create_only.load(Ordering::SeqCst)
        } else {
            server["metadata"]["annotations"][CREATE_ONLY_ANNOTATION] == "true"
        };
        let common = if with_federation {
            let parents = self.api(API_VERSION, "ZeroTrustWorkloadIdentityManager");
            match parents.get_opt("cluster").await? {
                Some(parent) => parent.data["spec"].clone(),
                None => return Ok(()),
            }
        } else {
            server["spec"].clone()
        };
        let desired = desired(&server, &common, &self.spec.spire_namespace)?;
        for Desired { object, differs } in &desired {
            self.keep(object, *differs, create_only).await?;
        }
        self.report(&servers, &server, create_only).await
    }

    /// Creates an object, or replaces it as a whole where it differs.
    async fn keep(
        &self,
        object: &Value,
        differs: fn(&Value, &Value) -> bool,
        create_only: bool,
    ) -> anyhow::Result<()> {
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let api = self.api(text(&object["apiVersion"]), kind);
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let Some(live) = api.get_opt(name).await? else {
            api.create(&parameters, &serde_json::from_value(object.clone())?)
                .await?;
            self.record("create", kind, name);
            return Ok(());
        };
        let live = serde_json::to_value(live)?;
        if create_only || !differs(&live, object) {
            return Ok(());
        }
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        api.replace(name, &parameters, &serde_json::from_value(object)?)
            .await?;
        self.record("update", kind, name);
        Ok(())
    }

    async fn report(
        &self,
        servers: &Api<DynamicObject>,
        server: &Value,
        create_only: bool,
    ) -> anyhow::Result<()> {
        let sets = self.api("apps/v1", "StatefulSet");
        let set = sets.get_opt("spire-server").await?;
        let ready = set.is_some_and(|set| set.data["status"]["readyReplicas"] == 1);
        let before = &server["status"]["conditions"];
        let mut conditions = vec![
            condition(
                before,
                "ServerConfigMapAvailable",
                true,
                "SpireConfigMapResourceCreated",
            ),
            condition(before, "ServiceAvailable", true, "Ready"),
            condition(
                before,
                "StatefulSetAvailable",
                ready,
                if ready { "Ready" } else { "Progressing" },
            ),
            condition(
                before,
                "Ready",
                ready,
                if ready { "Ready" } else { "Progressing" },
            ),
        ];
        let federation = &server["spec"]["federation"];
        if federation.is_object() {
            let managed = federation["managedRoute"] == "true";
            let reason = if managed {
                "RouteAvailable"
            } else {
                "FederationRouteDisabled"
            };
            conditions.push(condition(before, "RouteAvailable", managed, reason));
        }
        let was = find(before, "CreateOnlyMode").is_some();
        if create_only || was {
            let reason = if create_only {
                "CreateOnlyModeEnabled"
            } else {
                "CreateOnlyModeDisabled"
            };
            conditions.push(condition(before, "CreateOnlyMode", create_only, reason));
        }
        if *before == json!(conditions) {
            return Ok(());
        }
        let status = json!({"status": {"conditions": conditions}});
        servers
            .patch_status("cluster", &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        self.record("status", "SpireServer", "cluster");
        Ok(())
    }

    fn record(&self, verb: &'static str, kind: &str, name: &str) {
        let actions = self.actions.lock();
        actions
            .unwrap_or_else(PoisonError::into_inner)
            .push(Action {
                verb,
                kind: kind.to_owned(),
                name: name.to_owned(),
            });
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn find<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = conditions.as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind)
}

/// A condition; the former one as long as it says the same.
fn condition(before: &Value, kind: &str, holds: bool, reason: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    match find(before, kind) {
        Some(former) if former["status"] == status && former["reason"] == reason => former.clone(),
        _ => json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "",
            "lastTransitionTime": now(),
        }),
    }
}
