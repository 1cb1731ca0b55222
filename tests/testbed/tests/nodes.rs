//! Two clusters with real nodes: pods run, find each other and are attested; and nothing is left of it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]
#![expect(
    clippy::print_stderr,
    reason = "a slow first build must be seen to progress"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use trustweave_testbed::binaries::Binaries;
use trustweave_testbed::federation::cluster_spec;
use trustweave_testbed::image::{Architecture, Image, Tree, with_program};
use trustweave_testbed::nodes::spire::{self, CSI_DRIVER};
use trustweave_testbed::nodes::{NodeCluster, NodeSpec, Nodes};
use trustweave_testbed::{SpireVersion, wait_until};

/// Set for the process that is to be killed.
const VICTIM: &str = "TRUSTWEAVE_TESTBED_TEST_VICTIM";

/// The `NodePort` of what answers.
const PORT: u16 = 30081;

const SOON: Duration = Duration::from_secs(60);

const IMAGE: &str = "testbed.local/tools:1";

fn progress(line: &str) {
    eprintln!("{line}");
}

/// A shell, and SPIRE's own client of the Workload API.
fn tools() -> PathBuf {
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools.tar");
    let version = SpireVersion::of_this_run().unwrap();
    let binaries = Binaries::ensure(&[version].into(), &progress).unwrap();
    let agent = binaries.spire(version).unwrap().join("spire-agent");
    let mut tree = Tree::base();
    for (path, program) in [
        ("/bin/bash", Path::new("/bin/bash")),
        ("/bin/cat", Path::new("/bin/cat")),
        ("/bin/sleep", Path::new("/bin/sleep")),
        ("/bin/timeout", Path::new("/usr/bin/timeout")),
        ("/bin/spire-agent", &agent),
    ] {
        tree = with_program(tree, path, program).unwrap();
    }
    let image = Image {
        reference: IMAGE.to_owned(),
        entrypoint: vec!["/bin/bash".to_owned()],
        environment: vec!["PATH=/bin".to_owned()],
        ..Image::default()
    };
    let platforms = [(Architecture::OWN, tree)].into();
    image.write(&platforms, &archive).unwrap();
    archive
}

/// A pod with the tools and the Workload API's socket, and a `NodePort` of something that answers: the DNS server's
/// health.
async fn prepare(cluster: &NodeCluster) {
    let labels = json!({"app": "client"});
    let client = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "client"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "client",
                        "image": IMAGE,
                        "args": ["-c", "exec sleep infinity"],
                        "volumeMounts": [{"name": "spire", "mountPath": "/spire", "readOnly": true}],
                    }],
                    "volumes": [{"name": "spire", "csi": {"driver": CSI_DRIVER, "readOnly": true}}],
                },
            },
        },
    });
    let health = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "health", "namespace": "kube-system"},
        "spec": {
            "type": "NodePort",
            "selector": {"k8s-app": "kube-dns"},
            "ports": [{"port": 80, "targetPort": 8181, "nodePort": PORT}],
        },
    });
    let identity = json!({
        "apiVersion": "spire.spiffe.io/v1alpha1",
        "kind": "ClusterSPIFFEID",
        "metadata": {"name": "client"},
        "spec": {
            "className": cluster.spire.class_name(),
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/client",
            "podSelector": {"matchLabels": labels},
        },
    });
    for object in [client, health, identity] {
        cluster.kubectl_apply(&object.to_string()).await.unwrap();
    }
    cluster
        .until_rolled_out("default", "deployment/client")
        .await
        .unwrap();
}

async fn shell(cluster: &NodeCluster, script: &str) -> anyhow::Result<String> {
    cluster
        .exec("default", "deployment/client", &["bash", "-c", script])
        .await
}

/// Waits until a pod of a cluster gets an answer.
async fn until_answered(cluster: &NodeCluster, host: &str, port: u16) {
    let script = format!(
        "exec 3<>/dev/tcp/{host}/{port} && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && cat <&3"
    );
    let what = format!(
        "a pod of {} to get an answer of {host}:{port}",
        cluster.name()
    );
    wait_until(&what, SOON, async || {
        let answer = shell(cluster, &script).await?;
        anyhow::ensure!(answer.starts_with("HTTP/1.0 200"), "the answer is {answer}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

/// What a testbed has on this machine: processes, mounts, control groups, and its directory.
fn leftovers(directory: &Path) -> Vec<String> {
    let unique = directory.file_name().unwrap().to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        // Processes in pods know nothing of the directory, but are in the node's control groups.
        if format!("{}{}", read("cmdline"), read("cgroup")).contains(unique) {
            found.push(read("status").lines().take(3).collect());
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(unique));
    found.extend(mounts.map(str::to_owned));
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(group) = directories.pop() {
        if group.to_string_lossy().contains(unique) {
            found.push(group.display().to_string());
        }
        // Others' groups come and go.
        let below = std::fs::read_dir(&group).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
    if directory.exists() {
        found.push(directory.display().to_string());
    }
    found
}

#[tokio::test]
async fn pods_run_on_real_nodes() {
    let tools = tools();
    let spec = |name: &str| NodeSpec {
        images: vec![tools.clone()],
        ..NodeSpec::new(cluster_spec(name))
    };
    let specs = [spec("cluster-1"), spec("cluster-2")];
    let nodes = Nodes::start(&specs, &progress).await.unwrap();
    let [first, second] = nodes.clusters() else {
        unreachable!("two clusters")
    };
    futures::join!(prepare(first), prepare(second));

    for (cluster, other) in [(first, second), (second, first)] {
        // By a Service, by the other node's name, and as the other trust domain's ingress would be.
        until_answered(cluster, "health.kube-system", 80).await;
        until_answered(cluster, &other.host_name(), PORT).await;
        let ingress = format!("federation.{}", other.spire.trust_domain());
        until_answered(cluster, &ingress, PORT).await;
        is_attested(cluster).await;
        keeps_its_authority(cluster).await;
    }
    shell(first, "exec 3<>/dev/tcp/git.testbed/9418")
        .await
        .unwrap();

    nodes.cut_off("cluster-2").await.unwrap();
    let script = format!("exec 3<>/dev/tcp/{}/{PORT}", second.host_name());
    let script = format!("timeout 3 bash -c '{script}'");
    shell(first, &script).await.unwrap_err();
    nodes.reconnect("cluster-2").await.unwrap();
    until_answered(first, &second.host_name(), PORT).await;

    let directory = nodes.directory().to_owned();
    assert!(leftovers(&directory).len() > 20, "leftovers are not seen");
    drop(nodes);
    assert_eq!(leftovers(&directory), [""; 0]);
}

/// The kubelet tells SPIRE's agent what the pod is, and the pod gets its identity.
async fn is_attested(cluster: &NodeCluster) {
    let id = format!("spiffe://{}/client", cluster.spire.trust_domain());
    let fetch = "spire-agent api fetch x509 -socketPath /spire/spire-agent.sock";
    wait_until(&format!("a pod to be {id}"), SOON, async || {
        let identities = shell(cluster, fetch).await?;
        anyhow::ensure!(identities.contains(&id), "it is {identities}");
        Ok(Some(()))
    })
    .await
    .unwrap();
}

/// What the server must not lose is on a volume.
async fn keeps_its_authority(cluster: &NodeCluster) {
    let namespace = format!("--namespace={}", cluster.spire.namespace());
    let before = cluster.spire.own_bundle().await.unwrap();
    assert!(!before["keys"].as_array().unwrap().is_empty());
    let map = [
        "get",
        "configmap",
        "spire-bundle",
        &namespace,
        "--output=json",
    ];
    let map: Value = serde_json::from_str(&cluster.kubectl(&map).await.unwrap()).unwrap();
    let published: Value =
        serde_json::from_str(map["data"]["bundle.spiffe"].as_str().unwrap()).unwrap();
    assert_eq!(published["keys"], before["keys"]);
    assert!(
        map["data"]["bundle.crt"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );

    let server = format!("statefulset/{}", spire::SERVER);
    let pod = [
        "get",
        "pod",
        spire::POD,
        &namespace,
        "--output=jsonpath={.metadata.uid}",
    ];
    let old = cluster.kubectl(&pod).await.unwrap();
    cluster
        .kubectl(&["rollout", "restart", &server, &namespace])
        .await
        .unwrap();
    cluster
        .until_rolled_out(cluster.spire.namespace(), &server)
        .await
        .unwrap();
    assert_ne!(cluster.kubectl(&pod).await.unwrap(), old);
    assert_eq!(cluster.spire.own_bundle().await.unwrap(), before);
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let specs = [NodeSpec::new(cluster_spec("cluster-1"))];
    let nodes = Nodes::start(&specs, &progress).await.unwrap();
    let line = format!("\nVICTIM {}\n", nodes.directory().display());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_leaves_no_node() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let directory = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("VICTIM ").map(PathBuf::from))
        .unwrap();
    assert!(leftovers(&directory).len() > 10, "leftovers are not seen");
    kill_process(Pid::from_child(&victim), Signal::KILL).unwrap();
    victim.wait().unwrap();
    wait_until(
        "everything to be gone",
        Duration::from_secs(20),
        async || {
            let left = leftovers(&directory);
            anyhow::ensure!(left.is_empty(), "{left:#?}");
            Ok(Some(()))
        },
    )
    .await
    .unwrap();
}
