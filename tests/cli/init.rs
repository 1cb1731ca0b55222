//! `trustweave init`, with somebody at a terminal and without.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{Run, trustweave};

const SIGNER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr trustweave@a";

/// Runs the program on a pseudo-terminal (by `script` of util-linux), where somebody types these lines; what the terminal shows.
fn typed(directory: &Path, arguments: &str, lines: &[&str]) -> Run {
    let program = env!("CARGO_BIN_EXE_trustweave");
    let command = format!("stty -echo; exec '{program}' {arguments}");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(directory)
        .env("SHELL", "/bin/sh")
        .env("KUBECONFIG", directory.join("no-such-kubeconfig"))
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("CI")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in lines {
        writeln!(stdin, "{line}").unwrap();
    }
    // Left open: at its end, `script` would end the terminal, whatever has been read of it.
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

#[test]
fn a_repository_is_made_of_answers() {
    let here = TempDir::new().unwrap();
    let answers = [
        "no",
        "spiffe://a.test",
        "a.test",
        "one",
        "custom",
        "spire",
        "spire-class",
        "https://bundle.a.test",
        "",
        SIGNER,
        "made",
    ];
    let declined = typed(here.path(), "init", &[&answers[..], &["no"]].concat());
    assert!(
        declined.stdout.contains("nothing is written"),
        "{}",
        declined.stdout
    );
    declined.expect(1);
    assert!(!here.path().join("made").exists());

    let made = typed(here.path(), "init", &[&answers[..], &["yes"]].concat()).expect(0);
    for shown in [
        "Read what is installed in a running cluster [yes]: ",
        "`spiffe://a.test`",
        "--- trust-domains/a.test/trust-domain.yaml",
        "Write these 3 files into made [yes]: ",
    ] {
        assert!(made.stdout.contains(shown), "{shown}: {}", made.stdout);
    }
    let declaration = here
        .path()
        .join("made/trust-domains/a.test/trust-domain.yaml");
    let declaration = fs::read_to_string(declaration).unwrap();
    for line in [
        "  name: a.test",
        "    - name: one",
        "    distribution: custom",
        "    namespace: spire",
        "    className: spire-class",
        "    url: https://bundle.a.test",
        "    spiffeID: spiffe://a.test/spire/server",
        &format!("    - {SIGNER}"),
    ] {
        assert!(
            declaration.lines().any(|it| it == line),
            "{line}: {declaration}"
        );
    }
    // Only the overlay has still nothing in it.
    let checked = trustweave(here.path(), &["check", "made"]).expect(1);
    let places = checked.stderr.lines().filter(|it| it.contains(": error["));
    let places: Vec<_> = places.collect();
    assert!(
        places.len() == 1 && places[0].starts_with("clusters/one/"),
        "{}",
        checked.stderr
    );
}

#[test]
fn without_a_terminal_the_missing_flag_is_named() {
    let here = TempDir::new().unwrap();
    let refused = trustweave(here.path(), &["init"]).expect(2);
    assert!(
        refused.stderr.contains("say --from-cluster"),
        "{}",
        refused.stderr
    );
    let two = ["init", "--from-cluster", "--context=a", "--context=b"];
    let refused = trustweave(here.path(), &two).expect(2);
    assert!(refused.stderr.contains("--output"), "{}", refused.stderr);
    // Who is not to be asked is as if not there.
    let refused = typed(here.path(), "init --no-input", &[]).expect(2);
    assert!(
        refused.stdout.contains("say --from-cluster"),
        "{}",
        refused.stdout
    );
}
