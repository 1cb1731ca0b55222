//! `diff` between two states of a repository.

use serde_json::json;

use super::{DECLARATION, Repository};

#[test]
fn diff_tells_what_a_change_does_to_trust_first() {
    let repository = Repository::new();
    let same = repository.run(&["diff", "--base=HEAD"]).expect(0);
    assert_eq!(
        (same.stdout.as_str(), same.stderr.as_str()),
        ("no change\n", "")
    );

    repository.turn_the_edge();
    let turned = repository.run(&["diff", "--base=HEAD"]).expect(1);
    insta::assert_snapshot!(turned.stdout, @r"
    Trust:
      a.test: the workloads of cluster-1 will trust b.test
        - this waits until b.test publishes its bundle: there is none yet
        - in cluster-1, ClusterSPIFFEID api will federate with b.test
      b.test: the workloads of cluster-2 will no longer trust a.test: the topology does not ask for it any more
        - first a.test is taken out of every registration, then its keys are distrusted
        - in cluster-2, ClusterSPIFFEID api will no longer federate with a.test

    Cluster cluster-1:
    --- ClusterSPIFFEID.spire.spiffe.io api
    +++ ClusterSPIFFEID.spire.spiffe.io api
    @@ -5,7 +5,8 @@ spec
         trustweave.dev/federates-with: all
       name: api
     spec:
    -  federatesWith: []
    +  federatesWith:
    +  - b.test
       podSelector:
         matchLabels:
           app: api

    Cluster cluster-2:
    --- ClusterSPIFFEID.spire.spiffe.io api
    +++ ClusterSPIFFEID.spire.spiffe.io api
    @@ -5,8 +5,7 @@ spec
         trustweave.dev/federates-with: all
       name: api
     spec:
    -  federatesWith:
    -  - a.test
    +  federatesWith: []
       podSelector:
         matchLabels:
           app: api

    2 changes of trust; in 2 clusters: 2 objects to update
    ");
    assert_eq!(turned.stderr, "");

    repository.commit();
    let commits = repository
        .run(&["diff", "--base=HEAD~1", "--head=HEAD"])
        .expect(1);
    assert_eq!(commits.stdout, turned.stdout);
    let one = repository
        .run(&["diff", "--base=HEAD~1", "--cluster=cluster-1"])
        .expect(1);
    assert!(!one.stdout.contains("Cluster cluster-2"), "{}", one.stdout);
    repository
        .run(&["diff", "--base=HEAD~1", "--cluster=cluster-9"])
        .expect(2);
}

#[test]
fn diff_has_a_form_for_programs() {
    let repository = Repository::new();
    repository.turn_the_edge();
    let answer = repository
        .run(&["diff", "--base=HEAD", "--output=json"])
        .expect(1)
        .json();
    let trust = &answer["trust"][0];
    assert_eq!(
        trust["sentence"],
        "a.test: the workloads of cluster-1 will trust b.test"
    );
    assert_eq!(trust["change"]["kind"], "edge");
    assert_eq!(trust["change"]["before"]["state"], "absent");
    assert_eq!(trust["change"]["after"]["state"], "active");
    let registration = "ClusterSPIFFEID.spire.spiffe.io api";
    let gain = &trust["registrations"]["cluster-1"]["gain"][0];
    assert_eq!(gain, &json!({"object": registration, "workloads": []}));
    assert_eq!(
        answer["graph"],
        json!([
            {"importer": "a.test", "exporter": "b.test", "fate": "begins"},
            {"importer": "b.test", "exporter": "a.test", "fate": "ends"},
        ])
    );
    let object = &answer["clusters"]["cluster-2"]["objects"][0];
    let field = json!({
        "path": ".spec.federatesWith", "before": ["a.test"], "after": [], "managers": [],
    });
    assert_eq!(object["fields"], json!([field]));
    assert_eq!(
        (&object["action"], &object["object"]),
        (&"update".into(), &registration.into())
    );
    assert!(
        object["diff"].as_str().unwrap().contains("-  - a.test"),
        "{object}"
    );
}

#[test]
fn diff_says_whose_consent_is_missing() {
    let repository = Repository::new();
    repository.replace(DECLARATION, "export: [b.test]", "export: []");
    let run = repository.run(&["diff", "--base=HEAD"]).expect(1);
    let expected = "the owners of a.test must add b.test to consent.export";
    assert!(run.stdout.contains(expected), "{}", run.stdout);
}

#[test]
fn diff_hides_the_values_of_secrets() {
    let repository = Repository::new();
    let secret = |value: &str| {
        let object = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\n";
        repository.write(
            "clusters/cluster-1/api.yaml",
            &format!("{object}stringData: {{token: {value}}}\n"),
        );
    };
    secret("hunter1");
    repository.commit();
    secret("hunter2");
    let run = repository.run(&["diff", "--base=HEAD"]).expect(1);
    assert!(run.stdout.contains("*** (after)"), "{}", run.stdout);
    assert!(!run.stdout.contains("hunter"), "{}", run.stdout);
}

#[test]
fn diff_shows_what_is_readable_and_fails() {
    let repository = Repository::new();
    repository.turn_the_edge();
    repository.replace(DECLARATION, "bundleEndpoint:", "bundleEndpiont:");
    let run = repository.run(&["diff", "--base=HEAD"]).expect(2);
    assert!(run.stderr.contains(DECLARATION), "{}", run.stderr);
    // What can't be read stays as it was: a.test still agrees.
    assert!(
        run.stdout
            .contains("the workloads of cluster-1 will trust b.test"),
        "{}",
        run.stdout
    );

    // A change that repairs the repository is not held up by what it repairs.
    repository.commit();
    repository.replace(DECLARATION, "bundleEndpiont:", "bundleEndpoint:");
    let repaired = repository.run(&["diff", "--base=HEAD"]).expect(1);
    assert!(
        repaired.stderr.contains("note: the base has 1 error:"),
        "{}",
        repaired.stderr
    );

    repository.run(&["diff", "--base=nonsense"]).expect(2);
    repository.run(&["diff"]).expect(2);
    repository.run(&["diff", "--base=HEAD", "--live"]).expect(2);
}

#[test]
fn an_overlay_that_is_not_readable_in_full_deletes_nothing() {
    let repository = Repository::new();
    repository.replace(
        "clusters/cluster-1/kustomization.yaml",
        "api.yaml",
        "apj.yaml",
    );
    let run = repository.run(&["diff", "--base=HEAD"]).expect(2);
    assert!(!run.stdout.contains("Cluster cluster-1"), "{}", run.stdout);
    assert!(run.stderr.contains("clusters/cluster-1/"), "{}", run.stderr);
}

#[test]
fn the_form_for_programs_has_a_schema() {
    let here = Repository::new();
    let schema = here.run(&["schema", "diff"]).expect(0);
    insta::assert_snapshot!("schema-diff", schema.stdout);
}

#[test]
fn colours_are_for_terminals_and_emphasise_what_differs() {
    let repository = Repository::new();
    repository.replace("clusters/cluster-1/api.yaml", "}}/api", "}}/apj");
    let plain = repository.run(&["diff", "--base=HEAD"]).expect(1).stdout;
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = super::trustweave_with(
        repository.0.path(),
        &["diff", "--base=HEAD"],
        &[("CLICOLOR_FORCE", "1")],
    );
    let coloured = coloured.expect(1).stdout;
    // Inverted: the end of the SPIFFE ID, not the whole line.
    assert!(
        coloured.contains("\u{1b}[31m  spiffeIDTemplate"),
        "{coloured}"
    );
    assert!(coloured.contains("\u{1b}[7m"), "{coloured}");
}
