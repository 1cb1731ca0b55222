//! Who lacks which right, read from an API server's refusal, and how it is granted.

use std::fmt;

use kube::core::Status;

/// What a user needs on a kind so that its objects can be in an overlay.
const OVERLAY_VERBS: &str = "get,list,watch,create,patch,delete";

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// As whom the request was made, as Kubernetes calls it.
    user: String,
    verb: String,
    /// The resource's plural, with its subresource if there is one.
    resource: String,
    /// Empty for the core group.
    group: String,
    namespace: Option<String>,
    /// What else the server said: why a right that seems to be there does not count.
    rest: String,
    /// Whether it was for the overlay's objects: then users grant it, else `deploy/` does.
    overlay: bool,
}

impl Lack {
    /// The right that an answer says is missing. Other refusals (admission, quota, policies) are not
    /// of this kind: `None`.
    pub(super) fn read(status: &Status) -> Option<Self> {
        (status.code == 403)
            .then(|| Self::parse(&status.message))
            .flatten()
    }

    /// Reads `… is forbidden: User "u" cannot v resource "r" in API group "g" in the namespace "n"`.
    fn parse(message: &str) -> Option<Self> {
        let (_, text) = message.split_once("User \"")?;
        let (user, text) = text.split_once("\" cannot ")?;
        let (verb, text) = text.split_once(" resource \"")?;
        let (resource, text) = text.split_once("\" in API group \"")?;
        let (group, text) = text.split_once('"')?;
        let (namespace, rest) = match text.strip_prefix(" in the namespace \"") {
            Some(text) => {
                let (namespace, rest) = text.split_once('"')?;
                (Some(namespace.to_owned()), rest)
            }
            None => (None, text.strip_prefix(" at the cluster scope")?),
        };
        Some(Self {
            user: user.to_owned(),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            group: group.to_owned(),
            namespace,
            rest: rest.trim_start_matches([':', ' ']).to_owned(),
            overlay: false,
        })
    }

    /// It was for the overlay's objects.
    pub(super) fn for_overlays(&mut self) {
        self.overlay = true;
    }

    /// The `ServiceAccount` that it is, as `namespace/name`.
    fn service_account(&self) -> Option<(&str, &str)> {
        self.user
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')
    }

    /// As `kubectl` takes it: `deployments.apps`.
    fn resource(&self) -> String {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, format!("/{subresource}")),
            None => (self.resource.as_str(), String::new()),
        };
        match self.group.as_str() {
            "" => format!("{resource}{subresource}"),
            group => format!("{resource}.{group}{subresource}"),
        }
    }

    /// The command that grants what overlays with this kind need.
    fn command(&self) -> Option<String> {
        let (namespace, name) = self.service_account().filter(|_| self.overlay)?;
        // Not the right to impersonate, say: that one is the agent's own.
        if !OVERLAY_VERBS.split(',').any(|verb| verb == self.verb) {
            return None;
        }
        let resource = self.resource();
        let role = format!("{name}-{resource}");
        Some(format!(
            "kubectl create clusterrole {role} --verb={OVERLAY_VERBS} --resource={resource} && \
             kubectl create clusterrolebinding {role} --clusterrole={role} \
             --serviceaccount={namespace}:{name}"
        ))
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.service_account() {
            Some((namespace, name)) => write!(f, "the ServiceAccount {namespace}/{name}")?,
            None => write!(f, "the user {}", self.user)?,
        }
        write!(f, " may not {} {}", self.verb, self.resource())?;
        match &self.namespace {
            Some(namespace) => write!(f, " in the namespace {namespace}")?,
            None => f.write_str(" in the cluster")?,
        }
        if !self.rest.is_empty() {
            write!(f, " ({})", self.rest)?;
        }
        match self.command() {
            Some(command) => write!(f, "; grant what overlays with this kind need: {command}"),
            None => f.write_str("; deploy/, or one of its components, grants it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str, overlay: bool) -> Option<String> {
        let status = Status::failure(message, "Forbidden").with_code(403);
        let mut lack = Lack::read(&status)?;
        if overlay {
            lack.for_overlays();
        }
        Some(lack.to_string())
    }

    #[test]
    fn it_says_who_lacks_what_and_how_it_is_granted() {
        let sync = "User \"system:serviceaccount:tw:trustweave-sync\"";
        for (message, overlay, expected) in [
            (
                format!(
                    "deployments.apps \"x\" is forbidden: {sync} cannot patch resource \"deployments\" in API \
                     group \"apps\" in the namespace \"n\""
                ),
                true,
                "the ServiceAccount tw/trustweave-sync may not patch deployments.apps in the namespace n; grant \
                 what overlays with this kind need: kubectl create clusterrole trustweave-sync-deployments.apps \
                 --verb=get,list,watch,create,patch,delete --resource=deployments.apps && kubectl create \
                 clusterrolebinding trustweave-sync-deployments.apps \
                 --clusterrole=trustweave-sync-deployments.apps --serviceaccount=tw:trustweave-sync",
            ),
            (
                "serviceaccounts \"trustweave-sync\" is forbidden: User \"system:serviceaccount:tw:trustweave\" \
                 cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"tw\""
                    .to_owned(),
                true,
                "the ServiceAccount tw/trustweave may not impersonate serviceaccounts in the namespace tw; \
                 deploy/, or one of its components, grants it",
            ),
            (
                "trustpeers.trustweave.dev \"b\" is forbidden: User \"jane\" cannot patch resource \
                 \"trustpeers/status\" in API group \"trustweave.dev\" at the cluster scope: RBAC: \
                 clusterrole.rbac.authorization.k8s.io \"gone\" not found"
                    .to_owned(),
                false,
                "the user jane may not patch trustpeers.trustweave.dev/status in the cluster (RBAC: \
                 clusterrole.rbac.authorization.k8s.io \"gone\" not found); deploy/, or one of its components, \
                 grants it",
            ),
        ] {
            assert_eq!(told(&message, overlay).as_deref(), Some(expected), "{message}");
        }
    }

    #[test]
    fn what_is_refused_for_another_reason_is_no_missing_right() {
        let pod = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged";
        assert_eq!(told(pod, true), None);
    }
}
