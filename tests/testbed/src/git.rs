//! A git server: one bare repository behind `git daemon`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::process::{Process, Program, run, run_with_input};
use crate::reaper::Reaper;
use crate::{port, settings};

/// Who the commits of people are by.
const AUTHOR: &str = "Testbed <testbed@trustweave.dev>";

/// A bare repository that anybody on this machine may fetch from and push to.
#[derive(Debug)]
pub struct GitRemote {
    path: PathBuf,
    url: String,
    port: u16,
    daemon: Program,
    process: Mutex<Option<Process>>,
    reaper: Arc<Reaper>,
}

/// What a commit does to one path.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Writes a file.
    Write(&'a str, &'a [u8]),
    /// Removes a file or a directory.
    Delete(&'a str),
}

impl GitRemote {
    /// Makes the repository `<directory>/<name>.git` and serves it.
    pub async fn create(
        reaper: &Arc<Reaper>,
        directory: &Path,
        name: &str,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            settings::on_search_path("git"),
            "the testbed serves a git repository and needs git: `apt-get install git`"
        );
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(format!("{name}.git"));
        let mut init = git();
        init.args(["init", "--quiet", "--bare", "--initial-branch=main"])
            .arg(&path);
        run(reaper, init).await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = port::free()?;
            let remote = Self {
                url: format!("git://127.0.0.1:{port}/{name}.git"),
                port,
                daemon: daemon(directory, port),
                process: Mutex::new(None),
                path: path.clone(),
                reaper: Arc::clone(reaper),
            };
            match remote.start().await {
                Err(error) if attempts < 2 && port::was_taken(&error) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(remote),
            }
        }
    }

    /// The URL to fetch from and push to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port that it is served at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git inside the repository and returns its stdout.
    pub async fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = git();
        command.arg("--git-dir").arg(&self.path).args(arguments);
        run(&self.reaper, command).await
    }

    /// Commits files on top of a branch (made if there is none) and returns the commit.
    pub async fn commit(
        &self,
        branch: &str,
        files: &[(&str, &str)],
        message: &str,
    ) -> anyhow::Result<String> {
        let changes: Vec<Change<'_>> = files
            .iter()
            .map(|(path, content)| Change::Write(path, content.as_bytes()))
            .collect();
        self.change(branch, &changes, message).await
    }

    /// Commits the removal of files or directories.
    pub async fn delete(
        &self,
        branch: &str,
        paths: &[&str],
        message: &str,
    ) -> anyhow::Result<String> {
        let changes: Vec<Change<'_>> = paths.iter().map(|path| Change::Delete(path)).collect();
        self.change(branch, &changes, message).await
    }

    /// Commits writes and removals in one go. Hooks do not see it: they are for what clients push.
    pub async fn change(
        &self,
        branch: &str,
        changes: &[Change<'_>],
        message: &str,
    ) -> anyhow::Result<String> {
        let mut stream = self.commit_header(branch, message).await?;
        for change in changes {
            match change {
                Change::Write(path, content) => write_file(&mut stream, "100644", path, content),
                Change::Delete(path) => {
                    stream.extend_from_slice(format!("D {}\n", quoted(path)).as_bytes());
                }
            }
        }
        self.import(branch, stream).await
    }

    /// Commits a directory as the whole content of a branch: what the directory lacks is removed.
    pub async fn commit_directory(
        &self,
        branch: &str,
        directory: &Path,
        message: &str,
    ) -> anyhow::Result<String> {
        let mut stream = self.commit_header(branch, message).await?;
        stream.extend_from_slice(b"deleteall\n");
        write_directory(&mut stream, directory, directory)?;
        self.import(branch, stream).await
    }

    /// Lets a shell script decide about every push: it reads `<old> <new> <ref>` lines, and refuses by failing.
    pub fn pre_receive_hook(&self, script: &str) -> anyhow::Result<()> {
        let hook = self.hook();
        let unfinished = hook.with_extension("unfinished");
        std::fs::create_dir_all(self.path.join("hooks")).context("cannot make hooks")?;
        std::fs::write(&unfinished, format!("#!/bin/sh\n{script}\n"))
            .with_context(|| format!("cannot write {}", unfinished.display()))?;
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", unfinished.display()))?;
        std::fs::rename(&unfinished, &hook)
            .with_context(|| format!("cannot write {}", hook.display()))
    }

    /// Takes the hook away again.
    pub fn remove_hook(&self) -> anyhow::Result<()> {
        let hook = self.hook();
        std::fs::remove_file(&hook).with_context(|| format!("cannot remove {}", hook.display()))
    }

    /// A file's content at a revision.
    pub async fn show(&self, revision: &str, path: &str) -> anyhow::Result<String> {
        self.git(&["show", &format!("{revision}:{path}")]).await
    }

    /// The subjects of a branch's commits, newest first; empty if there is no such branch.
    pub async fn log(&self, branch: &str) -> anyhow::Result<Vec<String>> {
        let Some(tip) = self.tip(branch).await? else {
            return Ok(Vec::new());
        };
        let subjects = self.git(&["log", "--format=%s", &tip, "--"]).await?;
        Ok(subjects.lines().map(str::to_owned).collect())
    }

    /// The commit that a branch points to.
    pub async fn tip(&self, branch: &str) -> anyhow::Result<Option<String>> {
        let tips = self
            .git(&[
                "for-each-ref",
                "--format=%(objectname)",
                &format!("refs/heads/{branch}"),
            ])
            .await?;
        Ok(tips.lines().next().map(str::to_owned))
    }

    /// Makes the server unreachable; running transfers are cut.
    pub async fn stop(&self) -> anyhow::Result<()> {
        match self.process.lock().await.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Serves again, at the same URL.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut running = self.process.lock().await;
        if running.is_some() {
            return Ok(());
        }
        let process = Process::start(&self.reaper, &self.daemon)?;
        process
            .until_ready(Duration::from_secs(10), async || {
                TcpStream::connect(("127.0.0.1", self.port)).await?;
                Ok(Some(()))
            })
            .await?;
        *running = Some(process);
        Ok(())
    }

    fn hook(&self) -> PathBuf {
        self.path.join("hooks/pre-receive")
    }

    async fn commit_header(&self, branch: &str, message: &str) -> anyhow::Result<Vec<u8>> {
        let mut stream = format!(
            "commit refs/heads/{branch}\ncommitter {AUTHOR} now\ndata {}\n{message}\n",
            message.len()
        );
        if let Some(tip) = self.tip(branch).await? {
            stream.push_str("from ");
            stream.push_str(&tip);
            stream.push('\n');
        }
        Ok(stream.into_bytes())
    }

    /// One `git fast-import`, however many files: thousands take a blink.
    async fn import(&self, branch: &str, stream: Vec<u8>) -> anyhow::Result<String> {
        let mut command = git();
        command.arg("--git-dir").arg(&self.path).args([
            "fast-import",
            "--quiet",
            "--date-format=now",
            "--done",
        ]);
        let mut stream = stream;
        stream.extend_from_slice(b"done\n");
        run_with_input(&self.reaper, command, stream).await?;
        self.tip(branch)
            .await?
            .with_context(|| format!("{branch} has no commit"))
    }
}

/// git with nobody's configuration but ours.
fn git() -> tokio::process::Command {
    let mut command = tokio::process::Command::new("git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_WORK_TREE")
        .args([
            "-c",
            "user.name=Testbed",
            "-c",
            "user.email=testbed@trustweave.dev",
        ]);
    command
}

fn daemon(directory: &Path, port: u16) -> Program {
    let arguments = [
        "git".into(),
        "daemon".into(),
        "--listen=127.0.0.1".into(),
        format!("--port={port}").into(),
        "--reuseaddr".into(),
        "--enable=receive-pack".into(),
        "--export-all".into(),
        "--informative-errors".into(),
        "--verbose".into(),
        {
            let mut base = std::ffi::OsString::from("--base-path=");
            base.push(directory);
            base
        },
    ];
    Program {
        name: "git daemon".to_owned(),
        path: "/usr/bin/env".into(),
        arguments: arguments.to_vec(),
        environment: vec![
            ("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ],
        directory: directory.to_owned(),
        log: directory.join("daemon.log"),
    }
}

fn write_directory(stream: &mut Vec<u8>, root: &Path, directory: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            if path.file_name().is_some_and(|name| name != ".git") {
                write_directory(stream, root, &path)?;
            }
            continue;
        }
        let name = path.strip_prefix(root)?;
        let Some(name) = name.to_str() else {
            bail!("{} is not UTF-8", path.display());
        };
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        if metadata.is_symlink() {
            let target = std::fs::read_link(&path)?;
            write_file(
                stream,
                "120000",
                name,
                target.as_os_str().as_encoded_bytes(),
            );
        } else if metadata.permissions().mode() & 0o100 == 0 {
            write_file(stream, "100644", name, &read(&path)?);
        } else {
            write_file(stream, "100755", name, &read(&path)?);
        }
    }
    Ok(())
}

fn write_file(stream: &mut Vec<u8>, mode: &str, path: &str, content: &[u8]) {
    stream.extend_from_slice(
        format!("M {mode} inline {}\ndata {}\n", quoted(path), content.len()).as_bytes(),
    );
    stream.extend_from_slice(content);
    stream.push(b'\n');
}

/// A path as fast-import reads it, whatever characters it has.
fn quoted(path: &str) -> String {
    let escaped = path
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}
