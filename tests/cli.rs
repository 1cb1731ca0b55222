//! The command line as people and pipelines meet it: the real program, its output and exit codes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{fs, path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use tempfile::TempDir;
use trustweave::{
    git::SigningKey,
    model::{
        attestation::{self, Attestation, Serial},
        bundle::{Bundle, Digest},
        declaration::{API_VERSION, BundleEndpoint},
        diagnostic::Code,
        repository::publication,
        trust_domain::TrustDomain,
    },
};

#[path = "cli/bundle.rs"]
mod bundle;
#[path = "cli/comments.rs"]
mod comments;
#[path = "cli/diff.rs"]
mod diff;
#[path = "cli/init.rs"]
mod init;
#[path = "cli/pipelines.rs"]
mod pipelines;

const TOPOLOGY: &str = "\
apiVersion: trustweave.dev/v1alpha1
kind: Topology
metadata:
  name: topology
spec:
  edges:
    - from: b.test
      to: a.test
";

const KUSTOMIZATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - api.yaml
";

const REGISTRATION: &str = "\
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata:
  name: api
  annotations:
    trustweave.dev/federates-with: all
spec:
  spiffeIDTemplate: spiffe://{{ .TrustDomain }}/api
  podSelector:
    matchLabels:
      app: api
";

/// The declaration of `a.test`.
const DECLARATION: &str = "trust-domains/a.test/trust-domain.yaml";

/// A declaration; `peer` is whom it exports to and imports from.
fn trust_domain(name: &str, cluster: &str, peer: &str) -> String {
    format!(
        "\
apiVersion: trustweave.dev/v1alpha1
kind: TrustDomain
metadata:
  name: {name}
spec:
  clusters:
    - name: {cluster}
  spire:
    distribution: custom
    namespace: spire
    className: spire
  bundleEndpoint: none
  signers:
    - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA4qpBnwTjqK3UPDXP2c7Zzj+c9jQOTFZjLwOaQfbOZr {name}
  consent:
    import: [{peer}]
    export: [{peer}]
"
    )
}

/// What the program printed, and its exit code.
struct Run {
    stdout: String,
    stderr: String,
    code: i32,
}

impl Run {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn trustweave(directory: &Path, arguments: &[&str]) -> Run {
    trustweave_with(directory, arguments, &[])
}

fn trustweave_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_trustweave"))
        .args(arguments)
        .current_dir(directory)
        .env("COLUMNS", "100")
        .env("KUBECONFIG", directory.join("no-such-kubeconfig"))
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("TRUSTWEAVE_CONFIG")
        .env_remove("TRUSTWEAVE_LOG")
        .env_remove("TRUSTWEAVE_LOG_FORMAT")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// A git repository of two trust domains that agree, `b.test` trusting `a.test`.
struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(TempDir::new().unwrap());
        repository.write("topology.yaml", TOPOLOGY);
        for (name, cluster, peer) in [
            ("a.test", "cluster-1", "b.test"),
            ("b.test", "cluster-2", "a.test"),
        ] {
            let declaration = trust_domain(name, cluster, peer);
            repository.write(
                &format!("trust-domains/{name}/trust-domain.yaml"),
                &declaration,
            );
            repository.write(
                &format!("clusters/{cluster}/kustomization.yaml"),
                KUSTOMIZATION,
            );
            repository.write(&format!("clusters/{cluster}/api.yaml"), REGISTRATION);
        }
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit();
        repository
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Replaces a text that must be there.
    fn replace(&self, path: &str, from: &str, to: &str) {
        let content = fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(content.contains(from), "{content}");
        self.write(path, &content.replace(from, to));
    }

    /// `a.test` comes to trust `b.test`, no longer the other way round.
    fn turn_the_edge(&self) {
        self.replace("topology.yaml", "from: b.test", "from: a.test");
        self.replace("topology.yaml", "to: a.test", "to: b.test");
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(arguments)
            .current_dir(self.0.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .status()
            .unwrap();
        assert!(status.success(), "git {arguments:?}");
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=change"]);
    }

    fn run(&self, arguments: &[&str]) -> Run {
        trustweave(self.0.path(), arguments)
    }
}

#[test]
fn every_verb_has_its_help() {
    let here = TempDir::new().unwrap();
    for verb in [
        "",
        "agent",
        "bundle",
        "bundle allowed-signers",
        "bundle export",
        "bundle import",
        "bundle revoke",
        "bundle show",
        "bundle unrevoke",
        "check",
        "completions",
        "diff",
        "doctor",
        "init",
        "manual",
        "render",
        "resume",
        "schema",
        "status",
        "suspend",
        "sync",
        "verify",
    ] {
        let arguments: Vec<_> = verb.split_whitespace().chain(["--help"]).collect();
        let help = trustweave(here.path(), &arguments).expect(0);
        assert_eq!(help.stderr, "", "{verb}");
        let name = format!("help {verb}").trim_end().replace(' ', "-");
        insta::assert_snapshot!(name, help.stdout);
    }
}

#[test]
fn check_names_file_line_column_and_the_nearest_field() {
    let repository = Repository::new();
    assert_eq!(repository.run(&["check"]).expect(0).stderr, "");

    repository.replace(DECLARATION, "bundleEndpoint:", "bundleEndpiont:");
    let bad = repository.run(&["check"]).expect(1);
    let place = format!("{DECLARATION}:12:3: error[unknown-field]");
    assert!(bad.stderr.contains(&place), "{}", bad.stderr);
    assert!(bad.stderr.contains("`bundleEndpoint`"), "{}", bad.stderr);

    let json = repository.run(&["check", "--output=json"]).expect(1);
    assert_eq!(json.stderr, "");
    let answer = json.json();
    let diagnostics = answer["diagnostics"].as_array().unwrap();
    let found = diagnostics
        .iter()
        .find(|one| one["file"] == DECLARATION)
        .unwrap();
    assert_eq!((&found["line"], &found["column"]), (&12.into(), &3.into()));

    repository.run(&["check", "no-such-directory"]).expect(2);
    repository.run(&["check", "--revision=nonsense"]).expect(2);
    repository.run(&["check", "--revision=HEAD"]).expect(0);
}

#[test]
fn check_explains_its_codes() {
    let here = TempDir::new().unwrap();
    let explain = |arguments: &[&str]| trustweave(here.path(), &[&["check"], arguments].concat());
    let all = explain(&["--explain"]).expect(0).stdout;
    for code in Code::ALL {
        let one = explain(&["--explain", code.as_str()]).expect(0).stdout;
        assert!(one.starts_with(&format!("### `{code}`\n\n")), "{one}");
        assert!(all.contains(&one), "{one}");
    }
    let unknown = explain(&["--explain=wrong-kinds"]).expect(2);
    assert!(unknown.stderr.contains("wrong-kind,"), "{}", unknown.stderr);
}

#[test]
fn every_verb_has_its_manual_page() {
    let here = TempDir::new().unwrap();
    let first = trustweave(here.path(), &["manual"]).expect(0).stdout;
    assert!(first.contains(".TH trustweave 1"), "{first}");
    trustweave(here.path(), &["manual", "made/man1"]).expect(0);
    for page in ["trustweave", "trustweave-diff", "trustweave-bundle-revoke"] {
        let page = here.path().join(format!("made/man1/{page}.1"));
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let refused = trustweave(here.path(), &["manual", "/dev/null/man1"]).expect(2);
    assert!(
        refused
            .stderr
            .starts_with("error: write to `/dev/null/man1`")
    );
}

#[test]
fn without_a_cluster_the_answer_is_that_there_is_none() {
    let repository = Repository::new();
    for arguments in [
        &["status"][..],
        &["diff", "--live"],
        &["doctor"],
        &["verify"],
    ] {
        let run = repository.run(arguments).expect(2);
        assert_eq!(run.stdout, "", "{arguments:?}");
        let said = run.stderr.lines().any(|line| line.starts_with("error: "));
        assert!(said, "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn the_doctor_explains_itself_and_examines_a_repository_alone() {
    let repository = Repository::new();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md");
    let page = fs::read_to_string(page).unwrap();
    let explained = repository.run(&["doctor", "--explain"]).expect(0).stdout;
    assert!(
        page.ends_with(&explained),
        "docs/doctor.md must end with what `trustweave doctor --explain` prints:\n{explained}"
    );
    let one = repository
        .run(&["doctor", "--explain=peer-named"])
        .expect(0);
    assert!(explained.contains(&one.stdout), "{}", one.stdout);
    let unknown = repository.run(&["doctor", "--explain=peer"]).expect(2);
    assert!(unknown.stderr.contains("peer-named"), "{}", unknown.stderr);

    let alone = ["doctor", "--repo=.", "--no-cluster"];
    let text = repository.run(&alone).expect(0).stdout;
    assert!(text.contains("WARNING  bundle-published"), "{text}");
    assert!(
        text.contains("seen: a.test: nothing is published"),
        "{text}"
    );
    repository.replace(DECLARATION, "bundleEndpoint:", "bundleEndpiont:");
    repository.commit();
    let answer = repository
        .run(&[&alone[..], &["--output=json"]].concat())
        .expect(1)
        .json();
    let checks = answer["examined"][0]["checks"].as_array().unwrap();
    let invalid = checks.iter().find(|it| it["id"] == "repository-valid");
    let finding = &invalid.unwrap()["findings"][0];
    assert_eq!(finding["subject"], format!("{DECLARATION}:12:3"));
    repository.run(&["doctor", "--no-cluster"]).expect(2);
}

#[test]
fn bundle_show_says_why_a_bundle_is_not_verified() {
    let repository = Repository::new();
    let show = |arguments: &[&str]| repository.run(&[&["bundle", "show"], arguments].concat());
    let nothing = show(&["a.test"]).expect(1);
    let verdict = "not verified: nothing is published yet";
    assert!(nothing.stdout.contains(verdict), "{}", nothing.stdout);
    let stranger = show(&["z.test"]).expect(2);
    assert!(
        stranger.stderr.contains("declares no trust domain"),
        "{}",
        stranger.stderr
    );
    show(&["a.test", "--repo=/no-such-directory"]).expect(2);

    // The trust domain's own branch wins over the directory.
    repository.git(&["checkout", "--quiet", "--orphan", "trustweave/a.test"]);
    repository.write("bundle.json", "{}");
    repository.commit();
    repository.git(&["checkout", "--quiet", "main"]);
    let answer = show(&["a.test", "--output=json"]).expect(1).json();
    assert_eq!(answer["verified"], false);
    assert_eq!(answer["reason"], "MissingFile");
    let place = answer["publishedIn"].as_str().unwrap();
    assert!(
        place.starts_with("refs/heads/trustweave/a.test ("),
        "{place}"
    );
    assert_eq!(show(&["a.test", "--output=spiffe"]).expect(1).stdout, "");
}

/// A bundle with one fresh root that has not ended.
fn fresh_bundle() -> Bundle {
    let mut root = rcgen::CertificateParams::default();
    root.not_after = rcgen::date_time_ymd(2090, 1, 1);
    let root = root
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    let key = json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(root.der())]});
    let document = json!({"keys": [key], "spiffe_sequence": 7});
    Bundle::parse(document.to_string().as_bytes()).unwrap()
}

#[test]
fn bundle_show_verifies_what_a_declared_signer_signed() {
    let repository = Repository::new();
    let keypair = KeypairData::from(Ed25519Keypair::from_seed(&[7; 32]));
    let key = PrivateKey::new(keypair, "a.test").unwrap();
    let key = SigningKey::from_openssh(&key.to_openssh(LineEnding::LF).unwrap()).unwrap();
    let bundle = fresh_bundle();
    let content = bundle.canonical();
    let statement = Attestation {
        api_version: API_VERSION.to_owned(),
        kind: attestation::KIND.to_owned(),
        trust_domain: TrustDomain::parse("a.test").unwrap(),
        epoch: 0,
        serial: Serial(3),
        sha256: Digest::of(&content),
        spiffe_sequence: bundle.sequence,
        endpoint: BundleEndpoint::None,
        cluster_uid: "u".to_owned(),
        issued_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
    .to_bytes();
    let signature = key.sign(attestation::NAMESPACE, &statement).unwrap();
    for (name, content) in [
        (publication::BUNDLE, content.as_slice()),
        (publication::ATTESTATION, &statement),
        (publication::SIGNATURE, signature.as_bytes()),
    ] {
        let content = String::from_utf8(content.to_vec()).unwrap();
        repository.write(&format!("trust-domains/a.test/{name}"), &content);
    }
    repository.commit();
    let show = |format: &str| repository.run(&["bundle", "show", "a.test", "--output", format]);

    // The key is not declared yet: nothing of what it signed gets out.
    let stranger = show("text").expect(1);
    assert!(
        stranger.stdout.contains("not among the declared signers"),
        "{}",
        stranger.stdout
    );
    assert_eq!(show("spiffe").expect(1).stdout, "");

    let declared = fs::read_to_string(repository.0.path().join(DECLARATION)).unwrap();
    let line = declared.lines().find(|line| line.contains("ssh-")).unwrap();
    let both = format!("{line}\n    - {}", key.public_key());
    repository.replace(DECLARATION, line, &both);
    repository.commit();
    let text = show("text").expect(0).stdout;
    for expected in [
        "Verdict:         verified\n",
        "Serial:          3\n",
        "spiffe_sequence: 7\n",
        &format!("Signer:          {}\n", key.fingerprint()),
        "2090-01-01T00:00:00Z",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let answer = show("json").expect(0).json();
    assert_eq!(answer["signer"], key.fingerprint());
    assert_eq!(
        answer["x509Authorities"][0]["keySHA256"],
        bundle.x509_authorities[0].key.as_str()
    );
    assert_eq!(show("spiffe").expect(0).stdout.as_bytes(), content);
}

#[test]
fn completions_are_printed() {
    let here = TempDir::new().unwrap();
    let run = trustweave(here.path(), &["completions", "bash"]).expect(0);
    assert!(run.stdout.contains("complete -F"), "{}", run.stdout);
}

#[test]
fn a_repository_may_be_a_directory_of_a_larger_one() {
    let repository = Repository::new();
    fs::create_dir(repository.0.path().join("federation")).unwrap();
    repository.git(&[
        "mv",
        "topology.yaml",
        "trust-domains",
        "clusters",
        "federation",
    ]);
    repository.commit();
    let inside =
        |arguments: &[&str]| trustweave(&repository.0.path().join("federation"), arguments);
    inside(&["check", "--revision=HEAD"]).expect(0);
    let same = inside(&["diff", "--base=HEAD"]).expect(0);
    assert_eq!(same.stderr, "");
}

#[test]
fn a_broken_declaration_is_reported_once_and_not_where_it_is_named() {
    let repository = Repository::new();
    repository.replace(DECLARATION, "bundleEndpoint:", "bundleEndpiont:");
    let answer = repository.run(&["check", "--output=json"]).expect(1).json();
    let diagnostics = answer["diagnostics"].as_array().unwrap();
    let codes: Vec<_> = diagnostics.iter().map(|one| &one["code"]).collect();
    assert_eq!(codes, ["unknown-field"]);
}
