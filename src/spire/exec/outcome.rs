//! Which command is run where, and what its end means.

use std::fmt;

use thiserror::Error;

use crate::model::declaration::{ExecSource, Spire};

/// Where the server's program lies: in upstream's images, and in those of the zero trust workload
/// identity manager, where it is not on the search path.
const PROGRAMS: [&str; 2] = ["/opt/spire/bin/spire-server", "/spire-server"];

/// The commands that print the bundle, in the order in which they are tried.
pub(super) fn commands(source: &ExecSource) -> Vec<Vec<String>> {
    let programs = match &source.command {
        Some(program) => vec![program.as_str()],
        None => PROGRAMS.to_vec(),
    };
    let words = |program: &str| {
        let show = [program, "bundle", "show", "-format", "spiffe"];
        let socket = source.socket_path.as_deref();
        let socket = socket.into_iter().flat_map(|path| ["-socketPath", path]);
        show.into_iter().chain(socket).map(str::to_owned).collect()
    };
    programs.into_iter().map(words).collect()
}

/// The container in which the command is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "container {} of pod {}/{}",
            self.container, self.namespace, self.pod
        )
    }
}

/// Why the command gave no bundle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The agent may not execute there.
    #[error(
        "the agent may not execute in pod {}/{}: grant it the verbs get and create on pods/exec \
         (deploy/bundle-source-exec); that is control over the trust domain", .0.namespace, .0.pod
    )]
    Forbidden(Target),
    /// There is no such pod.
    #[error("there is no pod {}/{}: does `spire.server.statefulSet` name SPIRE's server?", .0.namespace, .0.pod)]
    NoPod(Target),
    /// The API server takes the request for wrong, which is about the container.
    #[error("the API server refuses to execute in {0}: is it there, and does it run?")]
    Refused(Target),
    /// Another answer of the API server.
    #[error("execute in {target}: the API server answers with status {status}")]
    Status {
        /// Where.
        target: Target,
        /// The HTTP status.
        status: u16,
    },
    /// The connection failed.
    #[error("execute in {target}")]
    Broken {
        /// Where.
        target: Target,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The container has none of the programs.
    #[error("{target} has no program {}: name it in `exec.command`", .programs.join(" or "))]
    NoProgram {
        /// Where.
        target: Target,
        /// The programs.
        programs: Vec<String>,
    },
    /// The command ended without success.
    #[error("`{command}` in {target} failed: {words}")]
    Command {
        /// The command.
        command: String,
        /// Where.
        target: Target,
        /// What it said, or else what is said of it.
        words: String,
    },
}

/// How a command ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    /// Whether it succeeded.
    pub(super) success: bool,
    /// What the container runtime says of its end.
    pub(super) message: String,
    /// What it printed.
    pub(super) stdout: Vec<u8>,
    /// What it complained about.
    pub(super) stderr: String,
}

impl Target {
    /// The container that the source names, or else that of the installation.
    pub(super) fn of(spire: &Spire, source: &ExecSource) -> Self {
        let server = &spire.server;
        let first = || format!("{}-0", server.stateful_set);
        let container = source.container.as_ref().unwrap_or(&server.container);
        Self {
            namespace: spire.namespace.clone(),
            pod: source.pod.clone().unwrap_or_else(first),
            container: container.clone(),
        }
    }

    /// What it means that the API server refused, by its HTTP status: more is not known.
    pub(super) fn refused(&self, status: u16) -> Failure {
        let target = self.clone();
        match status {
            403 => Failure::Forbidden(target),
            404 => Failure::NoPod(target),
            400 => Failure::Refused(target),
            status => Failure::Status { target, status },
        }
    }

    /// The connection failed.
    pub(super) fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Failure {
        Failure::Broken {
            target: self.clone(),
            source,
        }
    }

    /// What the command printed, if it succeeded.
    pub(super) fn judge(&self, command: &[String], ended: Ended) -> Result<Vec<u8>, Failure> {
        if ended.success {
            return Ok(ended.stdout);
        }
        let program = command.first().cloned().unwrap_or_default();
        if ended.stderr.is_empty() && is_missing(&ended.message, &program) {
            return Err(Failure::NoProgram {
                target: self.clone(),
                programs: vec![program],
            });
        }
        let words = [ended.stderr, ended.message, "it gave no reason".to_owned()];
        Err(Failure::Command {
            command: command.join(" "),
            target: self.clone(),
            words: words
                .into_iter()
                .find(|it| !it.is_empty())
                .unwrap_or_default(),
        })
    }
}

/// Whether the runtime says that it did not find the program. Each says it in its own words:
/// containerd and CRI-O with runc (`exec: "/x": stat /x: no such file or directory`), with crun
/// (``executable file `/x` not found: No such file or directory``).
fn is_missing(message: &str, program: &str) -> bool {
    let lower = message.to_lowercase();
    let absent = ["no such file or directory", "not found"];
    message.contains(program) && absent.iter().any(|words| lower.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spire() -> Spire {
        serde_json::from_value(serde_json::json!({
            "distribution": "custom", "namespace": "s", "className": "c",
            "server": {"statefulSet": "spire-test", "container": "server"},
        }))
        .unwrap()
    }

    fn target() -> Target {
        Target::of(&spire(), &ExecSource::default())
    }

    #[test]
    fn the_place_is_the_installations_unless_the_source_names_one() {
        assert_eq!(
            target().to_string(),
            "container server of pod s/spire-test-0"
        );
        let named = ExecSource {
            pod: Some("other-1".to_owned()),
            container: Some("spire".to_owned()),
            ..ExecSource::default()
        };
        let target = Target::of(&spire(), &named);
        assert_eq!(target.to_string(), "container spire of pod s/other-1");
    }

    #[test]
    fn both_images_programs_are_tried_and_no_shell_is() {
        let text = |source: &ExecSource| -> Vec<String> {
            commands(source).iter().map(|it| it.join(" ")).collect()
        };
        assert_eq!(
            text(&ExecSource::default()),
            [
                "/opt/spire/bin/spire-server bundle show -format spiffe",
                "/spire-server bundle show -format spiffe"
            ]
        );
        let named = ExecSource {
            command: Some("/bin/s".to_owned()),
            socket_path: Some("/tmp/a b.sock".to_owned()),
            ..ExecSource::default()
        };
        let words = commands(&named);
        assert_eq!(words.len(), 1);
        assert_eq!(words[0][5..], ["-socketPath", "/tmp/a b.sock"]);
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        for (status, expected) in [
            (403, "the verbs get and create on pods/exec"),
            (404, "there is no pod s/spire-test-0"),
            (400, "is it there, and does it run?"),
            (500, "status 500"),
        ] {
            let told = target().refused(status).to_string();
            assert!(told.contains(expected), "{status}: {told}");
        }
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_failed() {
        let command = commands(&ExecSource::default()).remove(0);
        let judge = |message: &str, stderr: &str| {
            let ended = Ended {
                message: message.to_owned(),
                stderr: stderr.to_owned(),
                ..Ended::default()
            };
            target().judge(&command, ended).unwrap_err()
        };
        for missing in [
            "Internal error occurred: error executing command in container: failed to exec in \
             container: failed to start exec \"1\": OCI runtime exec failed: exec failed: unable to \
             start container process: exec: \"/opt/spire/bin/spire-server\": stat \
             /opt/spire/bin/spire-server: no such file or directory: unknown",
            "executable file `/opt/spire/bin/spire-server` not found: No such file or directory",
        ] {
            let failure = judge(missing, "");
            assert!(matches!(failure, Failure::NoProgram { .. }), "{failure}");
        }
        for (message, stderr, told) in [
            (
                "command terminated with non-zero exit code",
                "Error: could not connect: dial unix /opt/spire/bin/spire-server: no such file or directory",
                "could not connect",
            ),
            (
                "the container is gone: not found",
                "",
                "the container is gone",
            ),
            ("", "", "it gave no reason"),
        ] {
            let failure = judge(message, stderr);
            assert!(matches!(failure, Failure::Command { .. }), "{failure}");
            assert!(failure.to_string().contains(told), "{failure}");
        }
        let success = Ended {
            success: true,
            stdout: b"{}".to_vec(),
            ..Ended::default()
        };
        assert_eq!(target().judge(&command, success).unwrap(), b"{}");
    }
}
