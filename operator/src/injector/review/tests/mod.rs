mod pods;
mod whatever;

use super::super::select::Binding;
use super::super::tests::{binding, known, pod_with, settings};
use super::*;
use crate::injector::lines::Lines;
use std::time::Instant;

fn review(request: &Value) -> Value {
    let mut whole = json!({
        "uid": "0f7e", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
        "namespace": "shop", "object": pod_with(&json!({})), "userInfo": {"username": "u"}, "novel": 1,
    });
    for (key, value) in request.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": API_VERSION, "kind": KIND, "request": whole})
}

fn parse(body: &[u8]) -> Result<Request, Malformed> {
    open(body)?.read()
}

fn respond(request: &Value, bindings: &[Binding]) -> Value {
    let request = parse(review(request).to_string().as_bytes()).unwrap();
    let decision = decide(&request, &known(bindings), &settings());
    answer(&request, decision)
}

#[test]
fn a_pod_is_answered_with_operations_that_apply() {
    let answer = respond(&json!({}), &[binding("db")]);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("0f7e"), &json!(true)));
    assert_eq!(response["patchType"], "JSONPatch");
    let operations = data_encoding::BASE64
        .decode(response["patch"].as_str().unwrap().as_bytes())
        .unwrap();
    let operations: Patch = serde_json::from_slice(&operations).unwrap();
    let mut pod = pod_with(&json!({}));
    json_patch::patch(&mut pod, &operations).unwrap();
    assert_eq!(pod["spec"]["containers"][1]["name"], "sealpod");
}

#[test]
fn a_refusal_carries_its_sentence_and_no_patch() {
    let pod = {
        let mut pod = pod_with(&json!({}));
        pod["metadata"]["annotations"] = json!({"sealpod.dev/binding": "nowhere"});
        pod
    };
    let answer = respond(&json!({"object": pod}), &[binding("db")]);
    let response = &answer["response"];
    assert_eq!(response["allowed"], false);
    assert!(response.get("patch").is_none());
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("SecretBinding \"nowhere\"") && message.contains("namespace \"shop\""),
        "{message}"
    );
}

#[test]
fn the_namespace_is_the_requests_and_not_the_objects() {
    let mut pod = pod_with(&json!({}));
    pod["metadata"]["namespace"] = json!("other");
    let answer = respond(&json!({"object": pod}), &[]);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("namespace \"shop\""), "{message}");
}

#[test]
fn what_does_not_ask_is_left_alone() {
    let mut unlabelled = pod_with(&json!({}));
    unlabelled["metadata"]["labels"] = json!({"sealpod.dev/inject": "yes"});
    for request in [
        json!({"object": unlabelled}),
        json!({"operation": "UPDATE"}),
        json!({"operation": "DELETE"}),
    ] {
        let answer = respond(&request, &[]);
        assert_eq!(answer["response"], json!({"uid": "0f7e", "allowed": true}), "{request}");
    }
}

#[test]
fn what_is_no_pod_is_refused() {
    for request in [
        json!({"resource": {"group": "apps", "resource": "deployments"}}),
        json!({"resource": {"resource": "pods"}, "subResource": "exec"}),
    ] {
        let answer = respond(&request, &[binding("db")]);
        assert_eq!(answer["response"]["allowed"], false, "{request}");
    }
}

#[test]
fn warnings_are_bounded() {
    let mut pod = pod_with(&json!({}));
    for i in 0..100 {
        pod["metadata"]["annotations"][format!("sealpod.dev/{}{i}", "é".repeat(300))] = json!("");
    }
    let answer = respond(&json!({"object": pod}), &[binding("db")]);
    let warnings = answer["response"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), WARNINGS);
    assert!(
        warnings
            .iter()
            .all(|warning| warning.as_str().unwrap().len() <= MOST_BYTES)
    );
}

#[test]
fn another_version_is_refused_by_name() {
    let mut other = review(&json!({}));
    other["apiVersion"] = json!("admission.k8s.io/v1beta1");
    assert_eq!(parse(other.to_string().as_bytes()).unwrap_err(), Malformed::Version);
    assert_eq!(
        parse(b"{\"canary\"").unwrap_err().to_string(),
        "the body is not an AdmissionReview with a request"
    );
}

#[test]
fn of_a_pod_that_is_too_heavy_to_be_read_it_is_known_whose_it_is() {
    let lines = Lines::default();
    let said = [Denial::TooLarge.to_string()];
    let told = |object: Value| {
        let body = review(&json!({"object": object})).to_string();
        let request = open(body.as_bytes()).unwrap().without_pod();
        let line = lines.of(request.pod(), &request.namespace, &said, Instant::now());
        line.map(|line| line.pod)
    };
    let heavy =
        |metadata: Value| json!({"metadata": metadata, "spec": {"tolerations": vec![json!({"key": "a"}); 100]}});
    let quoted = |name: &str| Some(format!("{name:?}"));
    assert_eq!(told(heavy(json!({"generateName": "web-"}))), quoted("web-"));
    assert_eq!(told(heavy(json!({"generateName": "mail-"}))), quoted("mail-"));
    assert_eq!(told(heavy(json!({"generateName": "web-"}))), None, "it is tried again");
    assert_eq!(told(heavy(json!({"name": "alone"}))), quoted("alone"));
    // What has no name that can be read is refused all the same.
    assert_eq!(told(heavy(json!({"name": 7}))), quoted(""));
}
