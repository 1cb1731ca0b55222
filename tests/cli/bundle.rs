//! The verbs of `bundle` that write: keys taken back, signers for other programs, sets on foot.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

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
        repository::publication::{ATTESTATION, BUNDLE, SIGNATURE},
        trust_domain::TrustDomain,
    },
};

use super::{Repository, fresh_bundle, trustweave};

const FILE: &str = "trust-domains/a.test/distrust.yaml";

/// The signer that every declaration gets, and another one.
pub(super) const DECLARED: u8 = 7;
const SECOND: u8 = 8;
pub(super) const STRANGER: u8 = 9;

fn private_key(seed: u8) -> String {
    let keypair = KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32]));
    let key = PrivateKey::new(keypair, "test").unwrap();
    key.to_openssh(LineEnding::LF).unwrap().to_string()
}

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_openssh(&private_key(seed)).unwrap()
}

/// The files of a publication by a trust domain without an endpoint.
fn publication(
    trust_domain: &str,
    seed: u8,
    serial: u64,
    bundle: &Bundle,
) -> BTreeMap<&'static str, Vec<u8>> {
    attested(trust_domain, BundleEndpoint::None, seed, serial, bundle)
}

/// The files of a publication.
pub(super) fn attested(
    trust_domain: &str,
    endpoint: BundleEndpoint,
    seed: u8,
    serial: u64,
    bundle: &Bundle,
) -> BTreeMap<&'static str, Vec<u8>> {
    let content = bundle.canonical();
    let statement = Attestation {
        api_version: API_VERSION.to_owned(),
        kind: attestation::KIND.to_owned(),
        trust_domain: TrustDomain::parse(trust_domain).unwrap(),
        epoch: 0,
        serial: Serial(serial),
        sha256: Digest::of(&content),
        spiffe_sequence: bundle.sequence,
        endpoint,
        cluster_uid: "u".to_owned(),
        issued_at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
    .to_bytes();
    let signature = key(seed).sign(attestation::NAMESPACE, &statement).unwrap();
    BTreeMap::from([
        (BUNDLE, content),
        (ATTESTATION, statement),
        (SIGNATURE, signature.into_bytes()),
    ])
}

impl Repository {
    /// With signers whose private halves the tests hold.
    fn signed() -> Self {
        let repository = Self::new();
        for name in ["a.test", "b.test"] {
            let path = format!("trust-domains/{name}/trust-domain.yaml");
            let declaration = fs::read_to_string(repository.0.path().join(&path)).unwrap();
            let line = declaration
                .lines()
                .find(|line| line.contains("ssh-"))
                .unwrap();
            repository.replace(
                &path,
                line,
                &format!("    - {}", key(DECLARED).public_key()),
            );
        }
        repository.commit();
        repository
    }

    /// Runs git, and returns what it prints.
    pub(super) fn ask(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]);
        command.args(arguments).current_dir(self.0.path());
        let output = run(&mut command, input);
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes the files the whole content of a trust domain's own branch.
    pub(super) fn publish(&self, trust_domain: &str, files: &BTreeMap<&str, Vec<u8>>) {
        let mut listing = Vec::new();
        for (name, content) in files {
            let blob = self.ask(&["hash-object", "-w", "--stdin"], content);
            listing.push(format!("100644 blob {blob}\t{name}\n"));
        }
        let tree = self.ask(&["mktree"], listing.concat().as_bytes());
        let commit = self.ask(&["commit-tree", &tree, "-m", "publish"], b"");
        let branch = format!("refs/heads/trustweave/{trust_domain}");
        self.ask(&["update-ref", &branch, &commit], b"");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input closes it.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

/// A bundle of `a.test` with two roots.
fn two_roots() -> Bundle {
    let mut bundle = fresh_bundle();
    bundle
        .x509_authorities
        .extend(fresh_bundle().x509_authorities);
    Bundle::parse(&bundle.canonical()).unwrap()
}

fn digest(bundle: &Bundle, index: usize) -> String {
    bundle.x509_authorities[index].key.to_string()
}

#[test]
fn a_key_is_taken_back_and_accepted_again() {
    let repository = Repository::signed();
    let bundle = two_roots();
    repository.publish("a.test", &publication("a.test", DECLARED, 1, &bundle));
    let (first, second) = (digest(&bundle, 0), digest(&bundle, 1));
    let revoke = |key: &str, more: &[&str]| {
        let arguments = [
            "bundle",
            "revoke",
            "a.test",
            "--x509",
            key,
            "--reason=copied: INC-42",
        ];
        repository.run(&[&arguments[..], more].concat())
    };

    let one = revoke(&first[..12], &[]).expect(0);
    let text = one.stdout.replace(&first[..12], "FIRST");
    insta::assert_snapshot!(text, @r"
    trust-domains/a.test/distrust.yaml: a.test revokes the X.509 key FIRST, which ends at 2090-01-01T00:00:00Z

    Once it is merged:
      - the workloads of b.test (cluster-2) refuse what it signed, at once
      - 1 X.509 authority of a.test is accepted then
      - clusters remember it: removing the entry later lifts nothing, only `trustweave bundle unrevoke` does
      - SPIRE of a.test itself goes on as before: taint and revoke the key there, too
    ");
    assert!(one.stderr.starts_with("Next: review it"), "{}", one.stderr);
    let written = repository.read(FILE);
    assert!(written.contains("reason: \"copied: INC-42\""), "{written}");
    assert_eq!(repository.run(&["check"]).expect(0).stderr, "");

    // What people wrote stays.
    repository.replace(FILE, "  revoked:\n", "  revoked:\n    # see INC-42\n");
    let commented = repository.read(FILE);
    let again = revoke(&first, &[]).expect(0);
    assert!(
        again.stdout.contains("is revoked already: nothing changes"),
        "{}",
        again.stdout
    );
    assert_eq!(
        (again.stderr.as_str(), repository.read(FILE)),
        ("", commented.clone())
    );

    let answer = revoke(&second, &["-o", "json"]).expect(0).json();
    assert_eq!(answer["everythingDistrusted"], true);
    assert_eq!(answer["keys"][0]["key"]["x509"], second);
    assert_eq!(answer["concerned"], json!({"b.test": ["cluster-2"]}));
    assert!(
        repository.read(FILE).starts_with(&commented),
        "{}",
        repository.read(FILE)
    );
    let all = revoke("0000", &[]).expect(2);
    assert!(all.stderr.contains("has no such key"), "{}", all.stderr);

    let unrevoke = |arguments: &[&str]| {
        let verb = ["bundle", "unrevoke", "a.test", "--reason=false alarm"];
        repository.run(&[&verb[..], arguments].concat())
    };
    let lifted = unrevoke(&["--x509", &first]).expect(0);
    let text = lifted.stdout.replace(&first[..12], "FIRST");
    insta::assert_snapshot!(text, @r"
    trust-domains/a.test/distrust.yaml: a.test accepts again the X.509 key FIRST, which ends at 2090-01-01T00:00:00Z

    Once it is merged:
      - the workloads of b.test (cluster-2) believe it again, in whatever bundle holds it
      - 1 X.509 authority of a.test is accepted then
      - what others revoked for themselves stays revoked
    ");
    let nothing = unrevoke(&["--x509", &first]).expect(1);
    assert!(
        nothing.stderr.contains("there is nothing to lift"),
        "{}",
        nothing.stderr
    );
    assert_eq!(
        unrevoke(&["--all", "-o", "json"]).expect(0).json()["x509AuthoritiesLeft"],
        2
    );
    assert_eq!(repository.run(&["check"]).expect(0).stderr, "");
    assert!(repository.read(FILE).contains("# see INC-42"));

    // And taken back once more, within the same second.
    let answer = revoke(&first, &["-o", "json"]).expect(0).json();
    assert_eq!(
        (&answer["changed"], &answer["x509AuthoritiesLeft"]),
        (&true.into(), &1.into())
    );
}

#[test]
fn a_peer_distrusts_for_itself_only() {
    let repository = Repository::signed();
    let bundle = fresh_bundle();
    repository.publish("a.test", &publication("a.test", DECLARED, 1, &bundle));
    let all = ["bundle", "revoke", "a.test", "--all", "--reason=r"];
    let answer = repository.run(&[&all[..], &["--by=b.test", "-o", "json"]].concat());
    let answer = answer.expect(0).json();
    assert_eq!(answer["file"], "trust-domains/b.test/distrust.yaml");
    assert_eq!(answer["concerned"], json!({"b.test": ["cluster-2"]}));
    assert_eq!(answer["everythingDistrusted"], true);
    assert!(!repository.0.path().join(FILE).exists());

    // b.test publishes nothing, so that only a full digest names a key of it.
    let strange = "ab".repeat(32);
    let other = |arguments: &[&str]| {
        repository.run(&[&["bundle", "revoke", "b.test", "--reason=r"], arguments].concat())
    };
    let unknown = other(&["--x509=abab"]).expect(2);
    assert!(
        unknown.stderr.contains("nothing is published yet"),
        "{}",
        unknown.stderr
    );
    other(&["--all"]).expect(2);
    let full = other(&["--x509", &strange, "--by=a.test"]).expect(0);
    assert!(
        full.stderr.contains("it is revoked all the same"),
        "{}",
        full.stderr
    );
    assert!(
        full.stdout.contains("a.test does not trust b.test now"),
        "{}",
        full.stdout
    );
    other(&["--jwt=k1"]).expect(2);
    other(&[
        "--jwt=k1",
        "--thumbprint=NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    ])
    .expect(0);
    other(&["--jwt=k1", "--all"]).expect(2);
    other(&[]).expect(2);
    other(&["--all", "--by=z.test"]).expect(2);
    repository
        .run(&["bundle", "revoke", "a.test", "--all", "--reason= "])
        .expect(2);
}

#[test]
fn a_forged_bundle_revokes_nothing_and_a_broken_file_is_not_replaced() {
    let repository = Repository::signed();
    let bundle = fresh_bundle();
    let revoke = ["bundle", "revoke", "a.test", "--all", "--reason=r"];
    repository.publish("a.test", &publication("a.test", STRANGER, 1, &bundle));
    let forged = repository.run(&revoke).expect(2);
    assert!(
        forged.stderr.contains("not among the declared signers"),
        "{}",
        forged.stderr
    );

    repository.publish("a.test", &publication("a.test", DECLARED, 1, &bundle));
    repository.write(FILE, "kind: Distrust\nspec: {revoked: [broken]}\n");
    let broken = repository.run(&revoke).expect(2);
    assert!(
        broken.stderr.contains("repair it first"),
        "{}",
        broken.stderr
    );
    assert!(repository.read(FILE).contains("broken"));
}

/// A directory with what the help of `allowed-signers` works on.
struct Checker(TempDir);

impl Checker {
    fn new(repository: &Repository, files: &BTreeMap<&str, Vec<u8>>) -> Self {
        let here = TempDir::new().unwrap();
        let signers = repository.run(&["bundle", "allowed-signers"]).expect(0);
        fs::write(here.path().join("allowed_signers"), signers.stdout).unwrap();
        for (name, content) in files {
            fs::write(here.path().join(name), content).unwrap();
        }
        Self(here)
    }

    /// The command of the help text for the signature.
    fn signature(&self, trust_domain: &str, namespace: &str) -> bool {
        let statement = fs::read(self.0.path().join(ATTESTATION)).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.current_dir(self.0.path()).args([
            "-Y",
            "verify",
            "-f",
            "allowed_signers",
            "-I",
            trust_domain,
            "-n",
            namespace,
            "-s",
            SIGNATURE,
        ]);
        run(&mut command, &statement).status.success()
    }

    /// The commands of the help text for what the attestation says, run as they stand there.
    fn said(&self, trust_domain: &str, help: &str) -> [bool; 2] {
        ["    sed -n", "    grep -x"].map(|start| {
            let line = help.lines().find(|line| line.starts_with(start)).unwrap();
            let line = line.replace("b.test", trust_domain);
            let mut shell = Command::new("sh");
            shell.args(["-ec", &line]).current_dir(self.0.path());
            run(&mut shell, b"").status.success()
        })
    }

    /// Changes one byte of a file.
    fn spoil(&self, name: &str, from: &str, to: &str) {
        let path = self.0.path().join(name);
        let content = fs::read_to_string(&path).unwrap();
        assert!(content.contains(from), "{content}");
        fs::write(path, content.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn anybody_verifies_with_ssh_keygen_alone() {
    let repository = Repository::signed();
    // b.test has another signer than a.test, and a second one.
    let path = "trust-domains/b.test/trust-domain.yaml";
    let line = format!("    - {}\n", key(DECLARED).public_key());
    let both = [key(STRANGER), key(SECOND)].map(|key| format!("    - {}\n", key.public_key()));
    repository.replace(path, &line, &both.concat());
    repository.commit();
    let help = repository
        .run(&["bundle", "allowed-signers", "--help"])
        .expect(0)
        .stdout;
    let bundle = fresh_bundle();
    let files = publication("a.test", DECLARED, 1, &bundle);
    let namespace = attestation::NAMESPACE;

    let good = Checker::new(&repository, &files);
    assert!(good.signature("a.test", namespace));
    assert_eq!(good.said("a.test", &help), [true, true]);
    assert!(
        !good.signature("b.test", namespace),
        "another trust domain's signer"
    );
    assert!(
        !good.signature("a.test", "git"),
        "signed for another purpose"
    );
    assert!(
        !good.signature("a.test", "file"),
        "a purpose that is not allowed"
    );
    assert_eq!(
        good.said("b.test", &help),
        [true, false],
        "another trust domain's name"
    );

    good.spoil(ATTESTATION, "\"serial\": 1", "\"serial\": 2");
    assert!(
        !good.signature("a.test", namespace),
        "a changed attestation"
    );

    let other = Checker::new(&repository, &files);
    other.spoil(BUNDLE, "keys", "kexs");
    assert!(other.signature("a.test", namespace));
    assert_eq!(
        other.said("a.test", &help),
        [false, true],
        "a changed bundle"
    );

    // Rotation of the signing key: each of two signers suffices.
    for seed in [STRANGER, SECOND] {
        let files = publication("b.test", seed, 1, &bundle);
        assert!(Checker::new(&repository, &files).signature("b.test", namespace));
    }
    let only = repository
        .run(&["bundle", "allowed-signers", "b.test"])
        .expect(0)
        .stdout;
    assert_eq!(only.lines().count(), 2, "{only}");
    assert!(only.starts_with("b.test namespaces=\"bundle@trustweave.dev,git\" ssh-ed25519 "));
}

#[test]
fn git_verifies_the_commits_of_declared_signers() {
    use std::os::unix::fs::OpenOptionsExt as _;

    let repository = Repository::signed();
    let signers = repository
        .run(&["bundle", "allowed-signers"])
        .expect(0)
        .stdout;
    let outside = TempDir::new().unwrap();
    let allowed = outside.path().join("allowed_signers");
    fs::write(&allowed, signers).unwrap();
    let verified = |seed: u8| {
        let file = outside.path().join(format!("key-{seed}"));
        // ssh-keygen takes no key that others may read.
        let mut options = fs::OpenOptions::new();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .unwrap();
        opened.write_all(private_key(seed).as_bytes()).unwrap();
        let sign = format!("-S{}", file.display());
        let commit = [
            "-c",
            "gpg.format=ssh",
            "commit-tree",
            &sign,
            "-m",
            "x",
            "HEAD^{tree}",
        ];
        let commit = repository.ask(&commit, b"");
        let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        let mut git = Command::new("git");
        git.args(["-c", &setting, "verify-commit", &commit]);
        run(git.current_dir(repository.0.path()), b"")
            .status
            .success()
    };
    assert!(verified(DECLARED));
    assert!(!verified(STRANGER));
}

#[test]
fn a_comment_of_a_signer_adds_no_line() {
    let repository = Repository::signed();
    let path = "trust-domains/b.test/trust-domain.yaml";
    let line = format!("- {}", key(DECLARED).public_key());
    let (own, stranger) = (key(DECLARED).public_key(), key(STRANGER).public_key());
    repository.replace(path, &line, &format!("- \"{own}\\na.test {stranger}\""));
    repository.commit();
    let run = repository.run(&["bundle", "allowed-signers"]);
    assert!(!run.stdout.contains(&stranger), "{}", run.stdout);
    assert!(run.stdout.lines().count() <= 2, "{}", run.stdout);

    // What can't be used is told.
    repository.replace(path, "bundleEndpoint:", "bundleEndpiont:");
    repository.commit();
    let broken = repository.run(&["bundle", "allowed-signers"]).expect(1);
    assert!(broken.stderr.contains(path), "{}", broken.stderr);
    assert!(broken.stdout.starts_with("a.test "), "{}", broken.stdout);
    repository
        .run(&["bundle", "allowed-signers", "b.test"])
        .expect(2);
}

/// A repository with the same declarations that no publisher reaches, bare.
fn far_away(repository: &Repository) -> TempDir {
    let there = TempDir::new().unwrap();
    let path = there.path().to_str().unwrap();
    repository.git(&["clone", "--quiet", "--bare", "--single-branch", ".", path]);
    there
}

fn results(answer: &Value) -> Vec<(&str, &str, &str)> {
    let text = |one: &'_ Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let rows = answer.as_array().unwrap().iter();
    rows.map(|one| {
        let field = |name: &str| one[name].as_str().unwrap_or_default();
        assert_eq!(text(one, "result"), field("result"));
        (field("trustDomain"), field("result"), field("reason"))
    })
    .collect()
}

#[test]
fn publications_are_carried_on_foot() {
    let repository = Repository::signed();
    let bundle = fresh_bundle();
    repository.publish("a.test", &publication("a.test", DECLARED, 4, &bundle));
    let there = far_away(&repository);
    let set = there.path().join("set.json");
    let set = set.to_str().unwrap();
    let export = || repository.run(&["bundle", "export", "--output", set]);
    let import = |code: i32| {
        let arguments = [
            "bundle",
            "import",
            set,
            "--declarations=main",
            "--output=json",
        ];
        trustweave(there.path(), &arguments).expect(code).json()
    };

    let exported = export().expect(0);
    assert_eq!(exported.stdout, "");
    assert!(
        exported.stderr.contains("b.test: nothing is published yet"),
        "{}",
        exported.stderr
    );
    assert_eq!(results(&import(0)), [("a.test", "imported", "")]);
    assert_eq!(results(&import(0)), [("a.test", "unchanged", "")]);
    let show = [
        "bundle",
        "show",
        "a.test",
        "--declarations=main",
        "--output=spiffe",
    ];
    let shown = trustweave(there.path(), &show).expect(0);
    assert_eq!(shown.stdout.as_bytes(), bundle.canonical());

    // Newer ones go on top, older ones and other content of the same serial are refused.
    repository.publish(
        "a.test",
        &publication("a.test", DECLARED, 5, &fresh_bundle()),
    );
    export().expect(0);
    assert_eq!(results(&import(0)), [("a.test", "imported", "")]);
    let log = Command::new("git")
        .args(["log", "--format=%an: %s", "trustweave/a.test"])
        .current_dir(there.path())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(log.stdout).unwrap(),
        "trustweave import: Import the bundle of a.test: serial 5\n\
         trustweave import: Import the bundle of a.test: serial 4\n"
    );
    repository.publish("a.test", &publication("a.test", DECLARED, 4, &bundle));
    export().expect(0);
    assert_eq!(results(&import(1)), [("a.test", "refused", "Older")]);
    repository.publish("a.test", &publication("a.test", DECLARED, 5, &bundle));
    export().expect(0);
    assert_eq!(results(&import(1)), [("a.test", "refused", "Equivocation")]);
    let text = trustweave(
        there.path(),
        &["bundle", "import", set, "--declarations=main"],
    );
    let text = text.expect(1).stdout;
    assert!(
        text.contains("a.test         refused   -        Equivocation: equivocation: serial 5"),
        "{text}"
    );
}

#[test]
fn only_what_verifies_is_carried() {
    let repository = Repository::signed();
    let bundle = fresh_bundle();
    let export = |names: &[&str]| repository.run(&[&["bundle", "export"], names].concat());
    repository.publish("a.test", &publication("a.test", STRANGER, 1, &bundle));
    let nothing = export(&[]).expect(1);
    assert_eq!(nothing.stdout, "");
    assert!(
        nothing.stderr.contains("refused: a.test: signed by"),
        "{}",
        nothing.stderr
    );
    repository.publish("b.test", &publication("b.test", DECLARED, 1, &bundle));
    let rest = export(&[]).expect(1).json();
    assert_eq!(rest["publications"].as_array().unwrap().len(), 1);
    export(&["b.test"]).expect(0);
    export(&["z.test"]).expect(2);

    // A set passes b.test's files off as a.test's, and a stranger's as b.test's.
    let carried = |name: &str, files: BTreeMap<&str, Vec<u8>>| {
        let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
        json!({
            "trustDomain": name, "bundle": text(BUNDLE),
            "attestation": text(ATTESTATION), "signature": text(SIGNATURE),
        })
    };
    let set = |publications: &[Value]| {
        let set = json!({
            "apiVersion": API_VERSION, "kind": "BundleSet", "publications": publications,
        });
        let path = repository.0.path().join("set.json");
        fs::write(&path, set.to_string()).unwrap();
        repository.run(&["bundle", "import", "set.json", "--output=json"])
    };
    let smuggled = set(&[
        carried("a.test", publication("b.test", DECLARED, 2, &bundle)),
        carried("b.test", publication("b.test", STRANGER, 2, &bundle)),
        carried("z.test", publication("z.test", DECLARED, 2, &bundle)),
    ]);
    assert_eq!(
        results(&smuggled.expect(1).json()),
        [
            ("a.test", "refused", "OtherTrustDomain"),
            ("b.test", "refused", "UnknownSigner"),
            ("z.test", "refused", "Undeclared"),
        ]
    );
    let twice = carried("b.test", publication("b.test", DECLARED, 2, &bundle));
    set(&[twice.clone(), twice.clone()]).expect(2);

    // A branch that is checked out is not pulled from under its files.
    repository.git(&["checkout", "--quiet", "trustweave/b.test"]);
    fs::write(repository.0.path().join("other.json"), set_of(&twice)).unwrap();
    let arguments = [
        "bundle",
        "import",
        "other.json",
        "--declarations=main",
        "-o=json",
    ];
    let refused = trustweave(Path::new(repository.0.path()), &arguments).expect(1);
    assert_eq!(
        results(&refused.json()),
        [("b.test", "refused", "CheckedOut")]
    );
    repository.git(&["checkout", "--quiet", "main"]);
    assert_eq!(
        results(&set(&[twice]).expect(0).json()),
        [("b.test", "imported", "")]
    );
}

fn set_of(publication: &Value) -> String {
    json!({"apiVersion": API_VERSION, "kind": "BundleSet", "publications": [publication]})
        .to_string()
}

/// A `distrust.yaml`; an entry is a trust domain, the first digit of a digest, and a time.
fn distrust(owner: &str, revoked: &[(&str, &str, &str)], lifted: &[(&str, &str, &str)]) -> String {
    let list = |entries: &[(&str, &str, &str)]| -> Value {
        let entry = |(trust_domain, digit, time): &(&str, &str, &str)| {
            json!({
                "trustDomain": trust_domain, "key": {"x509": digit.repeat(64)},
                "reason": "r", "time": time,
            })
        };
        entries.iter().map(entry).collect()
    };
    // JSON is YAML.
    let document = json!({
        "apiVersion": API_VERSION, "kind": "Distrust", "metadata": {"name": owner},
        "spec": {"revoked": list(revoked), "unrevoked": list(lifted)},
    });
    format!("{document:#}")
}

#[test]
fn check_finds_entries_that_change_nothing() {
    let repository = Repository::new();
    let past = "2026-01-01T00:00:00Z";
    let check = |owner: &str, content: &str| {
        repository.write(&format!("trust-domains/{owner}/distrust.yaml"), content);
        let run = repository.run(&["check", "--output=json"]);
        repository.write(
            &format!("trust-domains/{owner}/distrust.yaml"),
            &distrust(owner, &[], &[]),
        );
        let answer = run.json();
        let diagnostics = answer["diagnostics"].as_array().unwrap();
        assert!(
            diagnostics.iter().all(|one| one["line"].as_u64() > Some(6)),
            "{answer}"
        );
        let words = |one: &Value| {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            let (help, message) = (text("help"), text("message"));
            format!("{}[{}]: {message} ({help})", text("severity"), text("code"))
        };
        (
            run.code,
            diagnostics.iter().map(words).collect::<Vec<_>>().join("\n"),
        )
    };
    let (code, words) = check("b.test", &distrust("b.test", &[("a.test", "a", past)], &[]));
    assert_eq!((code, words.as_str()), (0, ""));
    let (code, words) = check("b.test", &distrust("b.test", &[("a.tset", "a", past)], &[]));
    assert_eq!(code, 0);
    assert_eq!(
        words,
        "warning[unknown-trust-domain]: an entry about `a.tset`, which no declaration stands for \
         (did you mean `a.test`?)"
    );
    let (code, words) = check("a.test", &distrust("a.test", &[("b.test", "a", past)], &[]));
    assert_eq!(code, 0);
    assert_eq!(
        words,
        "warning[without-effect]: `a.test` does not import `b.test`, so that this entry changes \
         nothing yet (an entry about a peer counts only for the own workloads)"
    );
    let future = distrust("b.test", &[("b.test", "a", "2999-01-01T00:00:00Z")], &[]);
    let (code, words) = check("b.test", &future);
    assert_eq!(code, 1);
    assert!(
        words.starts_with("error[invalid-value]: the time `2999-01-01T00:00:00Z` lies"),
        "{words}"
    );
    for revoked in [
        &[][..],
        &[("b.test", "a", past)],
        &[("b.test", "b", "2025-01-01T00:00:00Z")],
    ] {
        let content = distrust("b.test", revoked, &[("b.test", "a", past)]);
        let (code, words) = check("b.test", &content);
        assert_eq!(code, 0);
        assert!(
            words.starts_with("warning[without-effect]: nothing here revokes the X.509 key aaaa"),
            "{words}"
        );
    }
    let earlier = [("b.test", "a", "2025-01-01T00:00:00Z")];
    let content = distrust("b.test", &earlier, &[("b.test", "a", past)]);
    assert_eq!(check("b.test", &content), (0, String::new()));
}

#[test]
fn the_schema_of_distrust_knows_what_revoke_writes() {
    let repository = Repository::signed();
    let schema = repository.run(&["schema", "distrust"]).expect(0).json();
    let entry = &schema["definitions"]["Revocation"];
    assert_eq!(entry["additionalProperties"], false);
    let required = entry["required"].as_array().unwrap();
    assert_eq!(required, &["trustDomain", "key", "reason", "time"]);
    let lists = &schema["definitions"]["DistrustSpec"]["properties"];
    assert!(
        lists["revoked"].is_object() && lists["unrevoked"].is_object(),
        "{schema}"
    );

    // The new file takes over the schema's line of the declaration beside it.
    let declaration = repository.read(super::DECLARATION);
    let line = "# yaml-language-server: $schema=../../schemas/trust-domain.json";
    repository.write(super::DECLARATION, &format!("{line}\n{declaration}"));
    let digest = "ab".repeat(32);
    repository
        .run(&[
            "bundle",
            "revoke",
            "a.test",
            "--x509",
            &digest,
            "--reason=r",
        ])
        .expect(0);
    let written = repository.read(FILE);
    let expected =
        "# yaml-language-server: $schema=../../schemas/distrust.json\n# Keys that a.test";
    assert!(written.starts_with(expected), "{written}");
}

#[test]
fn diff_tells_which_keys_are_taken_back_first() {
    let repository = Repository::signed();
    let bundle = fresh_bundle();
    repository.publish("a.test", &publication("a.test", DECLARED, 1, &bundle));
    repository
        .run(&["bundle", "revoke", "a.test", "--all", "--reason=r"])
        .expect(0);
    let short = bundle.x509_authorities[0].key.short();
    let told = repository.run(&["diff", "--base=HEAD"]).expect(1);
    assert_eq!(
        told.stdout.replace(short, "KEY"),
        "Trust:\n  a.test revokes X.509 key KEY: the workloads of cluster-2 (b.test) refuse at once what it \
         signed; SVIDs signed by it may live until 2090-01-01T00:00:00Z; no X.509 authority \
         of a.test is left: everything of a.test is distrusted at once\n\n1 change of trust; no \
         object changes\n"
    );
    let answer = repository
        .run(&["diff", "--base=HEAD", "-o=json"])
        .expect(1)
        .json();
    let change = &answer["trust"][0]["change"];
    assert_eq!(
        (&change["kind"], &change["everything"], &change["liveUntil"]),
        (
            &"revoked".into(),
            &true.into(),
            &"2090-01-01T00:00:00Z".into()
        )
    );
    repository.commit();
    fs::remove_file(repository.0.path().join(FILE)).unwrap();
    let removed = repository.run(&["diff", "--base=HEAD"]).expect(1);
    assert!(
        removed
            .stdout
            .contains("that lifts nothing: clusters remember it"),
        "{}",
        removed.stdout
    );
}

#[test]
fn diff_tells_of_a_key_that_leaves_a_published_bundle_early() {
    let repository = Repository::signed();
    let publish = |serial: u64| {
        for (name, content) in publication("a.test", DECLARED, serial, &fresh_bundle()) {
            let content = String::from_utf8(content).unwrap();
            repository.write(&format!("trust-domains/a.test/{name}"), &content);
        }
    };
    publish(1);
    repository.commit();
    publish(2);
    let told = repository.run(&["diff", "--base=HEAD"]).expect(1);
    assert!(
        told.stdout
            .contains("SVIDs signed by it may live until 2090-01-01T00:00:00Z, and the workloads"),
        "{}",
        told.stdout
    );
}

#[test]
fn diff_tells_who_loses_by_a_declaration_that_is_removed() {
    let repository = Repository::new();
    repository.replace(
        "topology.yaml",
        "    - from: b.test\n      to: a.test\n",
        "",
    );
    repository.replace("topology.yaml", "  edges:\n", "  edges: []\n");
    fs::remove_file(repository.0.path().join(super::DECLARATION)).unwrap();
    repository.replace("trust-domains/b.test/trust-domain.yaml", "[a.test]", "[]");
    let told = repository.run(&["diff", "--base=HEAD"]).expect(1);
    let expected = "a.test is no longer declared: cluster-1 will give up every peer, and keep the overlay's objects; b.test loses federation with it\n  b.test: the workloads of cluster-2 will no longer \
                    trust a.test: the topology";
    assert!(
        told.stdout.contains(expected),
        "{}{}",
        told.stdout,
        told.stderr
    );
}
