//! Random objects that name each other.

use super::{
    node::{Node, map, raw},
    random::Random,
};

pub(crate) const NAMES: [&str; 6] = ["web", "db", "api", "cfg", "keys", "web-db"];
const LABELS: [(&str, &str); 5] = [
    ("app", "web"),
    ("app", "db"),
    ("tier", "front"),
    ("tier", "'1'"),
    ("rank", "\"7\""),
];
const IMAGES: [&str; 7] = [
    "nginx",
    "nginx:1.25",
    "registry.local:5000/nginx:1.0",
    "\"nginx:latest\"",
    "nginx@sha256:0123456789abcdef",
    "nginx:1.0@sha256:0123456789abcdef",
    "busybox:1.36",
];
const VALUES: [&str; 22] = [
    "x",
    "\"x\"",
    "'1'",
    "1",
    "2",
    "true",
    "\"true\"",
    "yes",
    "0644",
    "1.10",
    "1e3",
    "2001-01-01",
    "\"2001-01-01\"",
    "a b",
    "'a:b'",
    "http://x:80/y",
    "null",
    "~",
    "\"\"",
    "0x1F",
    "1_000",
    "2001-12-14T21:59:43.10-05:00",
];

/// What an object is known by.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

pub(crate) const KINDS: [(&str, &str); 27] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("v1", "Namespace"),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
    ),
    ("spire.spiffe.io/v1alpha1", "ClusterSPIFFEID"),
    ("apiregistration.k8s.io/v1", "APIService"),
];

pub(crate) fn name(random: &mut Random) -> Node {
    raw(*random.pick(&NAMES))
}

pub(crate) fn labels(random: &mut Random) -> Node {
    let mut found: Vec<(String, Node)> = Vec::new();
    for _ in 0..random.below(3) {
        let (key, value) = *random.pick(&LABELS);
        if !found.iter().any(|(known, _)| known == key) {
            found.push((key.to_owned(), raw(value)));
        }
    }
    Node::Map(found)
}

pub(crate) fn value(random: &mut Random) -> Node {
    raw(*random.pick(&VALUES))
}

/// A scalar that is not null: what annotations without a value mean depends on how they are written.
pub(crate) fn some_value(random: &mut Random) -> Node {
    loop {
        let found = *random.pick(&VALUES);
        if !matches!(found, "null" | "~") {
            return raw(found);
        }
    }
}

/// A random object.
pub(crate) fn object(random: &mut Random) -> (Known, Node) {
    let (api_version, kind) = *random.pick(&KINDS);
    let known = Known {
        api_version,
        kind,
        name: (*random.pick(&NAMES)).to_owned(),
        namespace: random
            .chance(20)
            .then(|| (*random.pick(&["one", "two", "default"])).to_owned()),
    };
    let node = of_kind(random, &known);
    (known, node)
}

fn of_kind(random: &mut Random, known: &Known) -> Node {
    let quoted = random.chance(10);
    let mut metadata = vec![(
        "name".to_owned(),
        raw(if quoted {
            format!("\"{}\"", known.name)
        } else {
            known.name.clone()
        }),
    )];
    if let Some(namespace) = &known.namespace {
        metadata.push(("namespace".to_owned(), raw(namespace)));
    }
    if random.chance(40) {
        metadata.push(("labels".to_owned(), labels(random)));
    }
    if random.chance(25) {
        let mut annotations = vec![("note".to_owned(), some_value(random))];
        if known.kind == "Ingress" {
            annotations.push((
                "nginx.ingress.kubernetes.io/auth-secret".to_owned(),
                name(random),
            ));
        }
        if random.chance(10) {
            annotations.push((
                "config.kubernetes.io/local-config".to_owned(),
                raw("\"true\""),
            ));
        }
        metadata.push(("annotations".to_owned(), Node::Map(annotations)));
    }
    let mut object = vec![
        ("apiVersion".to_owned(), raw(known.api_version)),
        ("kind".to_owned(), raw(known.kind)),
        ("metadata".to_owned(), Node::Map(metadata)),
    ];
    let body = body(random, known.kind);
    if let Node::Map(body) = body {
        object.extend(body);
    }
    Node::Map(object)
}

fn body(random: &mut Random, kind: &str) -> Node {
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
            map([("spec", workload(random, kind))])
        }
        "CronJob" => map([(
            "spec",
            map([
                ("schedule", raw("'* * * * *'")),
                ("jobTemplate", map([("spec", workload(random, "Job"))])),
            ]),
        )]),
        "Pod" => map([("spec", pod(random))]),
        "Service" => map([(
            "spec",
            map([
                ("selector", labels(random)),
                ("ports", ports(random, "port")),
            ]),
        )]),
        "ConfigMap" => {
            let mut data = vec![("a".to_owned(), raw("x"))];
            if random.chance(50) {
                data.push(("b".to_owned(), raw("\"2\"")));
            }
            if random.chance(20) {
                data.push(("json".to_owned(), raw("'{\"a\": \"<b>\"}'")));
            }
            map([("data", Node::Map(data))])
        }
        "Secret" => map([("stringData", map([("a", raw("x"))]))]),
        "ServiceAccount" => map([(
            "imagePullSecrets",
            Node::List(vec![map([("name", name(random))])]),
        )]),
        "Role" | "ClusterRole" => map([(
            "rules",
            Node::List(vec![map([
                ("apiGroups", Node::texts(["\"\""])),
                ("resources", Node::texts(["secrets"])),
                (
                    "resourceNames",
                    Node::List(vec![name(random), name(random)]),
                ),
                ("verbs", Node::texts(["get"])),
            ])]),
        )]),
        "RoleBinding" | "ClusterRoleBinding" => binding(random, kind),
        _ => other_body(random, kind),
    }
}

fn other_body(random: &mut Random, kind: &str) -> Node {
    match kind {
        "Ingress" => ingress(random),
        "NetworkPolicy" => map([(
            "spec",
            map([
                ("podSelector", map([("matchLabels", labels(random))])),
                (
                    "ingress",
                    Node::List(vec![map([(
                        "from",
                        Node::List(vec![map([(
                            "podSelector",
                            map([("matchLabels", labels(random))]),
                        )])]),
                    )])]),
                ),
            ]),
        )]),
        "HorizontalPodAutoscaler" => map([(
            "spec",
            map([(
                "scaleTargetRef",
                map([
                    ("apiVersion", raw("apps/v1")),
                    ("kind", raw("Deployment")),
                    ("name", name(random)),
                ]),
            )]),
        )]),
        "PodDisruptionBudget" => map([(
            "spec",
            map([
                ("minAvailable", raw(*random.pick(&["1", "50%"]))),
                ("selector", map([("matchLabels", labels(random))])),
            ]),
        )]),
        "PersistentVolumeClaim" => map([(
            "spec",
            map([
                ("storageClassName", name(random)),
                ("volumeName", name(random)),
            ]),
        )]),
        "PersistentVolume" => map([("spec", map([("storageClassName", name(random))]))]),
        "StorageClass" => map([
            ("provisioner", raw("x/y")),
            ("parameters", map([("secretName", name(random))])),
        ]),
        "ValidatingWebhookConfiguration" => map([(
            "webhooks",
            Node::List(vec![map([
                ("name", raw("a.b.test")),
                (
                    "clientConfig",
                    map([(
                        "service",
                        map([
                            ("name", name(random)),
                            ("namespace", raw(*random.pick(&["default", "one"]))),
                        ]),
                    )]),
                ),
            ])]),
        )]),
        "ClusterSPIFFEID" => map([(
            "spec",
            map([
                (
                    "spiffeIDTemplate",
                    raw("\"spiffe://a.test/{{ .PodMeta.Name }}\""),
                ),
                ("className", value(random)),
                ("federatesWith", Node::texts(["b.test", "c.test"])),
                ("podSelector", map([("matchLabels", labels(random))])),
            ]),
        )]),
        "APIService" => map([(
            "spec",
            map([
                (
                    "service",
                    map([("name", name(random)), ("namespace", raw("one"))]),
                ),
                ("version", raw("v1")),
            ]),
        )]),
        _ => Node::Map(Vec::new()),
    }
}

fn workload(random: &mut Random, kind: &str) -> Node {
    let mut spec = Vec::new();
    if random.chance(50) && !matches!(kind, "DaemonSet" | "Job") {
        spec.push((
            "replicas".to_owned(),
            raw(*random.pick(&["1", "3", "\"2\""])),
        ));
    }
    if kind != "Job" || random.chance(20) {
        spec.push((
            "selector".to_owned(),
            map([("matchLabels", labels(random))]),
        ));
    }
    if kind == "StatefulSet" {
        spec.push(("serviceName".to_owned(), name(random)));
        if random.chance(40) {
            let claim = map([
                ("metadata", map([("name", raw("data"))])),
                ("spec", map([("storageClassName", name(random))])),
            ]);
            spec.push(("volumeClaimTemplates".to_owned(), Node::List(vec![claim])));
        }
    }
    let mut template = vec![("spec".to_owned(), pod(random))];
    if random.chance(60) {
        template.insert(
            0,
            ("metadata".to_owned(), map([("labels", labels(random))])),
        );
    }
    spec.push(("template".to_owned(), Node::Map(template)));
    Node::Map(spec)
}

fn pod(random: &mut Random) -> Node {
    let mut spec = vec![];
    let count = 1 + random.below(2);
    let containers = (0..count).map(|index| container(random, index)).collect();
    spec.push(("containers".to_owned(), Node::List(containers)));
    if random.chance(20) {
        spec.push((
            "initContainers".to_owned(),
            Node::List(vec![container(random, 2)]),
        ));
    }
    if random.chance(30) {
        spec.push(("serviceAccountName".to_owned(), name(random)));
    }
    if random.chance(20) {
        spec.push(("priorityClassName".to_owned(), name(random)));
    }
    if random.chance(20) {
        spec.push((
            "imagePullSecrets".to_owned(),
            Node::List(vec![map([("name", name(random))])]),
        ));
    }
    if random.chance(50) {
        let count = 1 + random.below(2);
        let volumes = (0..count).map(|index| volume(random, index)).collect();
        spec.push(("volumes".to_owned(), Node::List(volumes)));
    }
    if random.chance(10) {
        let spread = map([
            ("maxSkew", raw("1")),
            ("topologyKey", raw("zone")),
            ("whenUnsatisfiable", raw("DoNotSchedule")),
            ("labelSelector", map([("matchLabels", labels(random))])),
        ]);
        spec.push((
            "topologySpreadConstraints".to_owned(),
            Node::List(vec![spread]),
        ));
    }
    Node::Map(spec)
}

pub(crate) fn container(random: &mut Random, index: usize) -> Node {
    let mut container = vec![
        ("name".to_owned(), raw(["main", "side", "init"][index])),
        ("image".to_owned(), raw(*random.pick(&IMAGES))),
    ];
    if random.chance(60) {
        let count = 1 + random.below(2);
        let env = (0..count).map(|index| env(random, index)).collect();
        container.push(("env".to_owned(), Node::List(env)));
    }
    if random.chance(30) {
        let from = *random.pick(&["configMapRef", "secretRef"]);
        let from = map([(from, map([("name", name(random))]))]);
        container.push(("envFrom".to_owned(), Node::List(vec![from])));
    }
    if random.chance(30) {
        container.push(("ports".to_owned(), ports(random, "containerPort")));
    }
    if random.chance(30) {
        container.push(("args".to_owned(), Node::texts(["--a", "\"--b=1\""])));
    }
    if random.chance(30) {
        let mount = map([("name", raw("v0")), ("mountPath", raw("/data"))]);
        container.push(("volumeMounts".to_owned(), Node::List(vec![mount])));
    }
    Node::Map(container)
}

fn env(random: &mut Random, index: usize) -> Node {
    let variable = raw(["A", "B"][index]);
    if random.chance(60) {
        return map([("name", variable), ("value", value(random))]);
    }
    let from = *random.pick(&["configMapKeyRef", "secretKeyRef"]);
    let reference = map([("name", name(random)), ("key", raw("a"))]);
    map([("name", variable), ("valueFrom", map([(from, reference)]))])
}

fn ports(random: &mut Random, key: &str) -> Node {
    let mut ports = vec![map([(key, raw("80")), ("name", raw("http"))])];
    if random.chance(40) {
        ports.push(map([(key, raw("443")), ("protocol", raw("TCP"))]));
    }
    if random.chance(20) {
        ports.push(map([(key, raw("443")), ("protocol", raw("UDP"))]));
    }
    Node::List(ports)
}

fn volume(random: &mut Random, index: usize) -> Node {
    let key = ("name", raw(format!("v{index}")));
    match random.below(4) {
        0 => map([key, ("configMap", map([("name", name(random))]))]),
        1 => map([key, ("secret", map([("secretName", name(random))]))]),
        2 => map([
            key,
            ("persistentVolumeClaim", map([("claimName", name(random))])),
        ]),
        _ => {
            let source = *random.pick(&["configMap", "secret"]);
            let sources = Node::List(vec![map([(source, map([("name", name(random))]))])]);
            map([key, ("projected", map([("sources", sources)]))])
        }
    }
}

fn binding(random: &mut Random, kind: &str) -> Node {
    let role = if kind == "RoleBinding" && random.chance(50) {
        "Role"
    } else {
        "ClusterRole"
    };
    let mut subjects = Vec::new();
    for _ in 0..=random.below(2) {
        let account = if random.chance(20) {
            raw("default")
        } else {
            name(random)
        };
        let mut subject = vec![
            ("kind".to_owned(), raw("ServiceAccount")),
            ("name".to_owned(), account),
        ];
        if random.chance(60) {
            subject.push((
                "namespace".to_owned(),
                raw(*random.pick(&["default", "one", "two"])),
            ));
        }
        subjects.push(Node::Map(subject));
    }
    map([
        (
            "roleRef",
            map([
                ("apiGroup", raw("rbac.authorization.k8s.io")),
                ("kind", raw(role)),
                ("name", name(random)),
            ]),
        ),
        ("subjects", Node::List(subjects)),
    ])
}

fn ingress(random: &mut Random) -> Node {
    let backend = map([(
        "service",
        map([
            ("name", name(random)),
            ("port", map([("number", raw("80"))])),
        ]),
    )]);
    let path = map([
        ("path", raw("/")),
        ("pathType", raw("Prefix")),
        ("backend", backend),
    ]);
    let rule = map([
        ("host", raw("a.test")),
        ("http", map([("paths", Node::List(vec![path]))])),
    ]);
    map([(
        "spec",
        map([
            ("ingressClassName", name(random)),
            ("tls", Node::List(vec![map([("secretName", name(random))])])),
            ("rules", Node::List(vec![rule])),
        ]),
    )])
}
