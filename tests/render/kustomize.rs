//! Real kustomize as a process that builds one directory after the other.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use trustweave::model::{repository::RepoPath, yaml};

/// The running program `render` of `tests/testbed/go/kustomize`.
pub(crate) struct Kustomize {
    process: Child,
    directories: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    yaml: String,
    #[serde(default)]
    error: Option<String>,
    nanoseconds: u64,
}

impl Kustomize {
    /// Starts the program.
    pub(crate) fn start(program: &Path) -> Self {
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let directories = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self {
            process,
            directories,
            answers,
        }
    }

    /// The objects of a directory and how long it took, or why there are none.
    pub(crate) fn build(&mut self, directory: &Path) -> Result<(Vec<Value>, Duration), String> {
        writeln!(self.directories, "{}", directory.display()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Answer = serde_json::from_str(&line).unwrap();
        match answer.error {
            Some(error) => Err(error),
            None => Ok((
                objects(&answer.yaml),
                Duration::from_nanos(answer.nanoseconds),
            )),
        }
    }
}

impl Drop for Kustomize {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The objects in what kustomize prints.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let path = RepoPath::parse("kustomize.yaml").unwrap();
    let documents = yaml::parse(&path, text).unwrap();
    documents.into_iter().map(|one| one.value).collect()
}
