//! Random overlays that combine what kustomizations can do.

use super::{
    node::{Node, map, raw},
    objects::{self, Known, NAMES},
    random::Random,
};

/// The files of a repository; `overlay` is what is rendered.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    pub(crate) files: Vec<(String, Vec<Node>)>,
}

impl Overlay {
    /// The overlay of a seed.
    pub(crate) fn random(seed: u64) -> Self {
        let mut generator = Generator {
            random: Random::new(seed),
            files: Vec::new(),
            directories: 0,
            taken: Vec::new(),
        };
        generator.directory("overlay", 0, &[], false);
        Self {
            files: generator.files,
        }
    }

    /// The files' texts.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        self.files
            .iter()
            .map(|(path, documents)| {
                let documents: Vec<String> = documents.iter().map(Node::write).collect();
                (path.clone(), documents.join("---\n"))
            })
            .collect()
    }

    /// The smallest overlay below this one for which `holds` holds.
    pub(crate) fn shrunk(mut self, mut holds: impl FnMut(&Self) -> bool) -> Self {
        loop {
            let smaller = self.smaller().find(|smaller| holds(smaller));
            match smaller {
                Some(smaller) => self = smaller,
                None => return self,
            }
        }
    }

    fn smaller(&self) -> impl Iterator<Item = Self> {
        let files = (0..self.files.len()).map(|index| {
            let mut smaller = self.clone();
            smaller.files.remove(index);
            smaller
        });
        let parts = self
            .files
            .iter()
            .enumerate()
            .flat_map(move |(file, (_, documents))| {
                documents
                    .iter()
                    .enumerate()
                    .flat_map(move |(document, node)| {
                        (0..node.parts()).map(move |part| {
                            let mut smaller = self.clone();
                            smaller.files[file].1[document].without(part);
                            smaller
                        })
                    })
            });
        files.chain(parts)
    }
}

struct Generator {
    random: Random,
    files: Vec<(String, Vec<Node>)>,
    directories: usize,
    /// Kinds and names that are in use somewhere.
    taken: Vec<(&'static str, String)>,
}

type Fields = Vec<(String, Node)>;

impl Generator {
    /// Writes a kustomization with all that it names; gives the objects that it yields.
    fn directory(
        &mut self,
        path: &str,
        depth: usize,
        below: &[Known],
        component: bool,
    ) -> Vec<Known> {
        let mut known = below.to_vec();
        let mut fields: Fields = Vec::new();
        if component {
            fields.push((
                "apiVersion".to_owned(),
                raw("kustomize.config.k8s.io/v1alpha1"),
            ));
            fields.push(("kind".to_owned(), raw("Component")));
        }
        let mut resources = Vec::new();
        let count = if depth == 0 {
            self.random.below(4)
        } else {
            1 + self.random.below(4)
        };
        for index in 0..count {
            let documents: Vec<Node> = (0..=self.random.below(2))
                .filter_map(|_| {
                    let (one, node) = objects::object(&mut self.random);
                    if self.is_taken(one.kind, &one.name) && !self.random.chance(2) {
                        return None;
                    }
                    self.taken.push((one.kind, one.name.clone()));
                    known.push(one);
                    Some(node)
                })
                .collect();
            if !documents.is_empty() {
                self.files
                    .push((format!("{path}/r{index}.yaml"), documents));
                resources.push(raw(format!("r{index}.yaml")));
            }
        }
        let bases = if depth == 0 {
            1 + self.random.below(2)
        } else {
            usize::from(depth == 1 && self.random.chance(30))
        };
        for _ in 0..bases {
            self.directories += 1;
            let base = format!("base{}", self.directories);
            let inner = self.directory(&base, depth + 1, &[], false);
            resources.push(raw(format!("../{base}")));
            known.extend(inner);
        }
        if !resources.is_empty() {
            fields.push(("resources".to_owned(), Node::List(resources)));
        }
        self.generators(path, &mut fields, &mut known);
        if depth < 2 && self.random.chance(20) {
            self.directories += 1;
            let directory = format!("component{}", self.directories);
            known = self.directory(&directory, 2, &known, true);
            fields.push((
                "components".to_owned(),
                Node::texts([format!("../{directory}")]),
            ));
        }
        self.names(&mut fields);
        self.metadata(&mut fields);
        self.workloads(&mut fields, &known);
        if !known.is_empty() {
            self.patches(path, &mut fields, &known);
            self.replacements(&mut fields, &known);
        }
        if fields
            .iter()
            .all(|(name, _)| matches!(name.as_str(), "apiVersion" | "kind"))
        {
            fields.push(("namePrefix".to_owned(), raw("only-")));
        }
        self.files.push((
            format!("{path}/kustomization.yaml"),
            vec![Node::Map(fields)],
        ));
        known
    }

    fn generators(&mut self, path: &str, fields: &mut Fields, known: &mut Vec<Known>) {
        for (field, kind) in [
            ("configMapGenerator", "ConfigMap"),
            ("secretGenerator", "Secret"),
        ] {
            if !self.random.chance(25) {
                continue;
            }
            let same: Vec<Known> = known
                .iter()
                .filter(|one| one.kind == kind)
                .cloned()
                .collect();
            let (name, behavior) = if !same.is_empty() && self.random.chance(60) {
                let one = self.random.pick(&same).clone();
                if one.namespace.is_some() && self.random.chance(95) {
                    continue;
                }
                (one.name, Some(*self.random.pick(&["merge", "replace"])))
            } else {
                let name = *self.random.pick(&NAMES);
                if self.is_taken(kind, name) && self.random.chance(90) {
                    continue;
                }
                self.taken.push((kind, name.to_owned()));
                (name.to_owned(), None)
            };
            let mut entry = vec![("name".to_owned(), raw(&name))];
            if let Some(behavior) = behavior {
                entry.push(("behavior".to_owned(), raw(behavior)));
            } else if self.random.chance(15) {
                entry.push(("namespace".to_owned(), raw("one")));
            }
            if self.random.chance(70) {
                let literals = [
                    *self.random.pick(&["a=1", "a='x y'", "a=<&>", "a=\"q\""]),
                    *self.random.pick(&["b=é", "b=", "b=x=y"]),
                ];
                entry.push(("literals".to_owned(), Node::texts(literals.map(quoted))));
            }
            if self.random.chance(40) {
                self.files.push((format!("{path}/{kind}.txt"), vec![raw(*self.random.pick(&[
                    "hello", "a\nb\tc", "a long text that fills more than one line of base64, so that it is broken into several",
                ]))]));
                let source = if self.random.chance(50) {
                    format!("{kind}.txt")
                } else {
                    format!("key={kind}.txt")
                };
                entry.push(("files".to_owned(), Node::texts([source])));
            }
            if self.random.chance(30) {
                self.files.push((
                    format!("{path}/{kind}.env"),
                    vec![raw("# a comment\nE1=one\n  E2=two words \nE3")],
                ));
                entry.push(("envs".to_owned(), Node::texts([format!("{kind}.env")])));
            }
            if kind == "Secret" && self.random.chance(30) {
                entry.push(("type".to_owned(), raw("example.test/type")));
            }
            if self.random.chance(40) {
                let options = self.options();
                entry.push(("options".to_owned(), options));
            }
            fields.push((field.to_owned(), Node::List(vec![Node::Map(entry)])));
            if behavior.is_none() {
                known.push(Known {
                    api_version: "v1",
                    kind,
                    name,
                    namespace: None,
                });
            }
        }
        if self.random.chance(10) {
            let options = self.options();
            fields.push(("generatorOptions".to_owned(), options));
        }
    }

    fn is_taken(&self, kind: &str, name: &str) -> bool {
        let mut taken = self.taken.iter();
        taken.any(|(other, known)| *other == kind && known == name)
    }

    fn options(&mut self) -> Node {
        let mut options = Vec::new();
        if self.random.chance(40) {
            options.push(("disableNameSuffixHash".to_owned(), raw("true")));
        }
        if self.random.chance(40) {
            options.push(("labels".to_owned(), map([("made", raw("'true'"))])));
        }
        if self.random.chance(30) {
            options.push(("annotations".to_owned(), map([("by", raw("generator"))])));
        }
        if self.random.chance(30) {
            options.push(("immutable".to_owned(), raw("true")));
        }
        Node::Map(options)
    }

    fn names(&mut self, fields: &mut Fields) {
        if self.random.chance(25) {
            fields.push((
                "namespace".to_owned(),
                raw(*self.random.pick(&["one", "three"])),
            ));
        }
        if self.random.chance(30) {
            fields.push((
                "namePrefix".to_owned(),
                raw(*self.random.pick(&["p-", "q-"])),
            ));
        }
        if self.random.chance(20) {
            fields.push((
                "nameSuffix".to_owned(),
                raw(*self.random.pick(&["-v1", "-x"])),
            ));
        }
    }

    fn metadata(&mut self, fields: &mut Fields) {
        let pairs = |random: &mut Random| {
            map([(
                *random.pick(&["team", "app"]),
                raw(*random.pick(&["red", "\"1\"", "'true'"])),
            )])
        };
        if self.random.chance(25) {
            let mut entry = vec![("pairs".to_owned(), pairs(&mut self.random))];
            if self.random.chance(30) {
                entry.push(("includeSelectors".to_owned(), raw("true")));
            }
            if self.random.chance(30) {
                entry.push(("includeTemplates".to_owned(), raw("true")));
            }
            if self.random.chance(20) {
                let field = map([
                    (
                        "path",
                        raw(*self.random.pick(&[
                            "spec/selector",
                            "spec/podSelector/matchLabels",
                            "metadata/annotations",
                        ])),
                    ),
                    (
                        "kind",
                        raw(*self
                            .random
                            .pick(&["Service", "ClusterSPIFFEID", "ConfigMap"])),
                    ),
                    ("create", raw(*self.random.pick(&["true", "false"]))),
                ]);
                entry.push(("fields".to_owned(), Node::List(vec![field])));
            }
            fields.push(("labels".to_owned(), Node::List(vec![Node::Map(entry)])));
        }
        if self.random.chance(8) {
            fields.push(("commonLabels".to_owned(), pairs(&mut self.random)));
        }
        if self.random.chance(15) {
            fields.push(("commonAnnotations".to_owned(), pairs(&mut self.random)));
        }
    }

    fn workloads(&mut self, fields: &mut Fields, known: &[Known]) {
        if self.random.chance(25) {
            let mut entry = vec![(
                "name".to_owned(),
                raw(*self
                    .random
                    .pick(&["nginx", "busybox", "registry.local:5000/nginx"])),
            )];
            for (field, values) in [
                ("newName", ["mirror.test/nginx", "other"]),
                ("newTag", ["\"1.30\"", "v2"]),
                ("digest", ["sha256:abc", "sha256:def"]),
                ("tagSuffix", ["-a", "-b"]),
            ] {
                if self.random.chance(30) {
                    entry.push((field.to_owned(), raw(*self.random.pick(&values))));
                }
            }
            fields.push(("images".to_owned(), Node::List(vec![Node::Map(entry)])));
        }
        let scaled: Vec<&Known> = known
            .iter()
            .filter(|one| matches!(one.kind, "Deployment" | "StatefulSet" | "ReplicaSet"))
            .collect();
        if !scaled.is_empty() && self.random.chance(20) {
            let name = if self.random.chance(90) {
                self.random.pick(&scaled).name.clone()
            } else {
                "nobody".to_owned()
            };
            let entry = map([
                ("name", raw(name)),
                ("count", raw(self.random.below(5).to_string())),
            ]);
            fields.push(("replicas".to_owned(), Node::List(vec![entry])));
        }
    }

    fn patches(&mut self, path: &str, fields: &mut Fields, known: &[Known]) {
        let mut patches = Vec::new();
        for index in 0..self.random.below(3) {
            let one = self.random.pick(known).clone();
            let is_json = self.random.chance(40);
            let content = if is_json {
                self.json_patch(&one)
            } else {
                self.strategic_patch(&one)
            };
            let mut entry = Vec::new();
            if is_json || self.random.chance(40) {
                // What a JSON patch changes must be there.
                let target = if is_json && self.random.chance(80) {
                    map([("kind", raw(one.kind)), ("name", raw(&one.name))])
                } else {
                    self.target(&one)
                };
                entry.push(("target".to_owned(), target));
                if !is_json && self.random.chance(20) {
                    let option = *self.random.pick(&["allowNameChange", "allowKindChange"]);
                    entry.push(("options".to_owned(), map([(option, raw("true"))])));
                }
            }
            if self.random.chance(50) {
                entry.push(("patch".to_owned(), Node::Block(Box::new(content))));
            } else {
                self.files
                    .push((format!("{path}/p{index}.yaml"), vec![content]));
                entry.push(("path".to_owned(), raw(format!("p{index}.yaml"))));
            }
            patches.push(Node::Map(entry));
        }
        if !patches.is_empty() {
            fields.push(("patches".to_owned(), Node::List(patches)));
        }
        if self.random.chance(6) {
            let one = self.random.pick(known).clone();
            let merged = Node::Block(Box::new(self.strategic_patch(&one)));
            fields.push(("patchesStrategicMerge".to_owned(), Node::List(vec![merged])));
        }
        if self.random.chance(6) {
            let one = self.random.pick(known).clone();
            let operations = Node::Block(Box::new(self.json_patch(&one)));
            let target = map([
                ("version", raw("v1")),
                ("kind", raw(one.kind)),
                ("name", raw(&one.name)),
            ]);
            fields.push((
                "patchesJson6902".to_owned(),
                Node::List(vec![map([("target", target), ("patch", operations)])]),
            ));
        }
    }

    fn target(&mut self, one: &Known) -> Node {
        match self.random.below(6) {
            0 => map([("kind", raw(one.kind))]),
            1 => map([
                ("kind", raw(one.kind)),
                ("name", raw(format!("{}.*", one.name))),
            ]),
            2 => map([
                ("name", raw(".*b.*")),
                ("kind", raw("\"Deployment|Service\"")),
            ]),
            3 => map([(
                "labelSelector",
                raw(*self
                    .random
                    .pick(&["app=web", "\"app in (web, db)\"", "\"!tier\"", "rank=7"])),
            )]),
            4 => map([
                ("kind", raw(one.kind)),
                ("namespace", raw(*self.random.pick(&["one", "default"]))),
            ]),
            _ => map([("group", raw("apps")), ("version", raw("v1"))]),
        }
    }

    fn json_patch(&mut self, one: &Known) -> Node {
        let operation = |op: &str, path: &str, value: Node| {
            map([("op", raw(op)), ("path", raw(path)), ("value", value)])
        };
        let workload = matches!(
            one.kind,
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job"
        );
        let mut operations = Vec::new();
        for _ in 0..=self.random.below(2) {
            operations.push(match self.random.below(9) {
                0 => operation("add", "/metadata/labels", map([("json", raw("patched"))])),
                1 => operation(
                    "add",
                    "/metadata/annotations",
                    map([("json", raw("\"1\""))]),
                ),
                2 => operation(
                    "replace",
                    "/metadata/name",
                    raw(*self.random.pick(&["renamed", "web"])),
                ),
                3 => operation(
                    "add",
                    "/extra",
                    raw(*self
                        .random
                        .pick(&["1", "0.5", "text", "\"2\"", "null", "[1, a]"])),
                ),
                4 if one.kind == "ConfigMap" => operation("replace", "/data/a", raw("\"3\"")),
                4 if workload => operation(
                    "replace",
                    "/spec/template/spec/containers/0/image",
                    raw("patched:1"),
                ),
                5 if self.random.chance(15) => {
                    map([("op", raw("remove")), ("path", raw("/metadata/labels"))])
                }
                6 => operation("test", "/kind", raw(one.kind)),
                7 => map([
                    ("op", raw("copy")),
                    ("from", raw("/metadata/name")),
                    ("path", raw("/copied")),
                ]),
                8 if workload => operation(
                    "add",
                    "/spec/template/spec/containers/-",
                    objects::container(&mut self.random, 1),
                ),
                _ => operation("add", "/metadata/labels", map([("app", raw("json"))])),
            });
        }
        Node::List(operations)
    }

    fn strategic_patch(&mut self, one: &Known) -> Node {
        let mut metadata = vec![("name".to_owned(), raw(&one.name))];
        if let Some(namespace) = &one.namespace {
            metadata.push(("namespace".to_owned(), raw(namespace)));
        }
        if self.random.chance(30) {
            let value = if self.random.chance(30) {
                raw("null")
            } else {
                raw("patched")
            };
            metadata.push(("labels".to_owned(), map([("app", value)])));
        }
        if self.random.chance(20) {
            let value = objects::some_value(&mut self.random);
            metadata.push(("annotations".to_owned(), map([("note", value)])));
        }
        let mut patch = vec![
            ("apiVersion".to_owned(), raw(one.api_version)),
            ("kind".to_owned(), raw(one.kind)),
            ("metadata".to_owned(), Node::Map(metadata)),
        ];
        if self.random.chance(4) {
            patch.push(("$patch".to_owned(), raw("delete")));
            return Node::Map(patch);
        }
        let pod = |containers: Vec<Node>| {
            map([(
                "spec",
                map([(
                    "template",
                    map([("spec", map([("containers", Node::List(containers))]))]),
                )]),
            )])
        };
        let body = match one.kind {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
                match self.random.below(5) {
                    0 => pod(vec![objects::container(&mut self.random, 0)]),
                    1 => pod(vec![
                        objects::container(&mut self.random, 1),
                        objects::container(&mut self.random, 0),
                    ]),
                    2 => pod(vec![map([
                        ("name", raw("main")),
                        ("$patch", raw("delete")),
                    ])]),
                    3 => map([(
                        "spec",
                        map([("replicas", raw(*self.random.pick(&["5", "null", "\"4\""])))]),
                    )]),
                    _ => map([(
                        "spec",
                        map([(
                            "template",
                            map([(
                                "spec",
                                map([("serviceAccountName", objects::name(&mut self.random))]),
                            )]),
                        )]),
                    )]),
                }
            }
            "ConfigMap" => map([(
                "data",
                map([("a", objects::value(&mut self.random)), ("c", raw("added"))]),
            )]),
            "Service" => map([(
                "spec",
                map([(
                    "ports",
                    Node::List(vec![map([("port", raw("80")), ("name", raw("web"))])]),
                )]),
            )]),
            "ClusterSPIFFEID" => map([(
                "spec",
                map([
                    ("federatesWith", Node::texts(["d.test"])),
                    ("className", objects::value(&mut self.random)),
                ]),
            )]),
            _ => Node::Map(Vec::new()),
        };
        if let Node::Map(body) = body {
            patch.extend(body);
        }
        Node::Map(patch)
    }

    fn replacements(&mut self, fields: &mut Fields, known: &[Known]) {
        if !self.random.chance(18) {
            return;
        }
        let source = self.random.pick(known).clone();
        let target = self.random.pick(known).clone();
        let path = match source.kind {
            "ConfigMap" => *self.random.pick(&["data.a", "metadata.name"]),
            "Deployment" => *self.random.pick(&[
                "metadata.name",
                "spec.template.spec.containers.0.image",
                "spec.template.spec.containers.[name=main].image",
                "spec.replicas",
                "metadata.labels.app",
            ]),
            _ => *self
                .random
                .pick(&["metadata.name", "metadata.annotations.note", "kind"]),
        };
        let mut from = vec![
            ("kind".to_owned(), raw(source.kind)),
            ("name".to_owned(), raw(&source.name)),
            ("fieldPath".to_owned(), raw(path)),
        ];
        if self.random.chance(20) {
            let index = usize::from(self.random.chance(10));
            from.push((
                "options".to_owned(),
                map([("delimiter", raw("':'")), ("index", raw(index.to_string()))]),
            ));
        }
        let path = match target.kind {
            "Deployment" | "StatefulSet" | "DaemonSet" => *self.random.pick(&[
                "spec.template.spec.containers.*.image",
                "spec.template.spec.containers.[name=main].image",
                "spec.template.spec.containers.[name=main].env.[name=A].value",
                "spec.replicas",
                "spec.template.metadata.labels.app",
            ]),
            "ConfigMap" => *self.random.pick(&["data.a", "data.new"]),
            "ClusterSPIFFEID" => *self.random.pick(&[
                "spec.className",
                "spec.federatesWith.0",
                "spec.federatesWith.[=b.test]",
            ]),
            _ => *self.random.pick(&[
                "metadata.annotations.note",
                "metadata.labels.app",
                "metadata.annotations.[a.b/c]",
            ]),
        };
        let mut to = vec![
            (
                "select".to_owned(),
                if self.random.chance(70) {
                    map([("kind", raw(target.kind)), ("name", raw(&target.name))])
                } else {
                    map([("kind", raw(target.kind))])
                },
            ),
            (
                "fieldPaths".to_owned(),
                Node::List(vec![raw(format!("'{path}'"))]),
            ),
        ];
        if self.random.chance(15) {
            to.push((
                "reject".to_owned(),
                Node::List(vec![map([("name", raw(*self.random.pick(&NAMES)))])]),
            ));
        }
        let mut options = Vec::new();
        if self.random.chance(85) {
            options.push(("create".to_owned(), raw("true")));
        }
        if self.random.chance(20) {
            options.push(("delimiter".to_owned(), raw("':'")));
            options.push((
                "index".to_owned(),
                raw(*self.random.pick(&["0", "1", "5", "-1"])),
            ));
        }
        if !options.is_empty() {
            to.push(("options".to_owned(), Node::Map(options)));
        }
        let mut entry = vec![("targets".to_owned(), Node::List(vec![Node::Map(to)]))];
        if self.random.chance(10) {
            entry.push(("sourceValue".to_owned(), raw("given")));
        } else {
            entry.push(("source".to_owned(), Node::Map(from)));
        }
        fields.push((
            "replacements".to_owned(),
            Node::List(vec![Node::Map(entry)]),
        ));
    }
}

/// A text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
