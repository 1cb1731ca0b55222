use serde_json::json;

use super::*;
use crate::federation::server::tests::wanted;

fn objects(more: &Value) -> String {
    let mut wanted = wanted(more);
    wanted.tls_route = Some(Gvk::new("gateway.networking.k8s.io/v1alpha3", "TLSRoute"));
    let selector = json!({"app": "spire-server"});
    let service = service_object(&wanted, selector.as_object().unwrap());
    let outer = outer_object(&wanted).unwrap();
    let objects: Vec<_> = std::iter::once(service).chain(outer).collect();
    crate::model::yaml::emit(&objects)
}

#[test]
fn each_exposure_has_its_objects() {
    insta::assert_snapshot!("route", objects(&json!({"expose": "route"})));
    insta::assert_snapshot!("none", objects(&json!({"expose": "none", "port": 9443})));
    insta::assert_snapshot!(
        "load_balancer",
        objects(&json!({
            "url": "https://a.test:9000",
            "expose": {"loadBalancer": {"annotations": {"cloud": "internal"}}},
        }))
    );
    insta::assert_snapshot!(
        "gateway",
        objects(&json!({"expose": {"gateway": {"parentRefs": [
            {"name": "edge", "namespace": "gateways", "sectionName": "passthrough"},
        ]}}}))
    );
    for controller in ["nginx", "haproxy", "openshift"] {
        let ingress =
            json!({"className": "x", "controller": controller, "annotations": {"more": "1"}});
        insta::assert_snapshot!(
            format!("ingress_{controller}"),
            objects(&json!({"expose": {"ingress": ingress}}))
        );
    }
}

#[test]
fn without_the_kind_there_is_no_tls_route() {
    let wanted = wanted(&json!({"expose": "gateway"}));
    let error = outer_object(&wanted).unwrap_err();
    assert!(error.contains("install the Gateway API"), "{error}");
    assert_eq!(references(&wanted).len(), 1);
}

#[test]
fn a_refusal_of_a_router_is_told() {
    let route = json!({"status": {"ingress": [{"conditions": [
        {"type": "Admitted", "status": "False", "reason": "HostAlreadyClaimed", "message": "by x"},
    ]}]}});
    assert_eq!(refusal(&route).as_deref(), Some("HostAlreadyClaimed: by x"));
    let accepted = json!({"status": {"parents": [{"conditions": [
        {"type": "Accepted", "status": "True"},
    ]}]}});
    assert_eq!(refusal(&accepted), None);
}
