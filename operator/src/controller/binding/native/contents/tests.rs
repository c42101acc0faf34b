use super::*;
use sealpod_crds::SecretBindingSpec;
use serde_json::{Value, json};

struct Case {
    spec: SecretBindingSpec,
    bundle: Bundle,
}

/// Of `spec.secrets`, `spec.kubernetesSecret` but for its name, and the values that the server has.
fn case(secrets: &Value, native: &Value, values: &[(&str, &str)]) -> Case {
    let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod", "kubernetesSecret": native});
    spec["kubernetesSecret"]["name"] = json!("copy");
    if !secrets.is_null() {
        spec["secrets"] = secrets.clone();
    }
    let secrets: serde_json::Map<_, _> = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!({"value": value, "version": 1})))
        .collect();
    let bundle = json!({"etag": "e", "next_change_at": null, "secrets": secrets, "configurations": {"port": "5432"}});
    Case {
        spec: serde_json::from_value(spec).unwrap(),
        bundle: serde_json::from_value(bundle).unwrap(),
    }
}

impl Case {
    fn made(&self, old: &[(&str, &str)]) -> Result<Contents, Problem> {
        let selection = Selection::parse(&self.spec).unwrap();
        let target = Target::parse(&self.spec, &selection).unwrap().unwrap();
        let old: Data = old
            .iter()
            .map(|(key, text)| ((*key).to_owned(), Zeroizing::new(text.as_bytes().to_vec())))
            .collect();
        contents(&target, &selection, &self.bundle, (!old.is_empty()).then_some(&old))
    }

    /// Entries as text, and the reason of the problem if any.
    fn shown(&self, old: &[(&str, &str)]) -> (Vec<(String, String)>, Option<&'static str>) {
        let made = self.made(old).unwrap();
        let text = |bytes: &Zeroizing<Vec<u8>>| String::from_utf8_lossy(bytes).into_owned();
        let data = made.data.iter().map(|(key, bytes)| (key.clone(), text(bytes)));
        (data.collect(), made.problem.map(|problem| problem.reason))
    }

    fn refused(&self, old: &[(&str, &str)]) -> (&'static str, String) {
        let problem = self.made(old).unwrap_err();
        (problem.reason, problem.message)
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn without_data_each_key_is_its_own_entry_and_what_is_no_key_is_left_out() {
    let case = case(&Value::Null, &json!({}), &[("a", "1"), ("b.c", "2"), ("d/e", "3")]);
    let (data, problem) = case.shown(&[]);
    assert_eq!(
        (data, problem),
        (pairs(&[("a", "1"), ("b.c", "2")]), Some(reasons::NEEDS_KEY))
    );
    assert!(case.made(&[]).unwrap().problem.unwrap().message.contains("`d/e`"));
}

#[test]
fn entries_take_a_secret_or_a_template_over_secrets_and_configurations() {
    let data = json!([
        {"key": "password", "secret": "db"},
        {"key": "url", "template": "postgres://u:{{ secrets.db }}@h:{{ configurations.port }}"},
    ]);
    let case = case(&json!([{"name": "db"}]), &json!({"data": data}), &[("db", "hunter2")]);
    let wanted = pairs(&[("password", "hunter2"), ("url", "postgres://u:hunter2@h:5432")]);
    assert_eq!(case.shown(&[]), (wanted, None));
}

#[test]
fn bytes_are_decoded_and_what_is_not_base64_is_told() {
    let secrets = json!([{"name": "store", "decode": "base64"}]);
    let made = case(&secrets, &json!({}), &[("store", "AP8B\n")]).made(&[]).unwrap();
    assert_eq!(made.data["store"].as_slice(), [0, 255, 1]);
    let broken = case(&secrets, &json!({}), &[("store", "canary!")]);
    let (reason, message) = broken.refused(&[]);
    assert_eq!(reason, reasons::INVALID_VALUE);
    let data = json!({"data": [{"key": "line", "template": "{{ secrets.store }}"}]});
    let template = case(
        &json!([{"name": "store", "decode": "base64"}]),
        &data,
        &[("store", "AP8B")],
    );
    assert_eq!(
        template.shown(&[]),
        (pairs(&[("line", "AP8B")]), None),
        "as it is stored"
    );
    assert!(message.contains("`store`") && !message.contains("canary"), "{message}");
    assert_eq!(
        broken.shown(&[("store", "old")]),
        (pairs(&[("store", "old")]), Some(reasons::INVALID_VALUE))
    );
}

#[test]
fn what_is_missing_or_denied_keeps_its_last_value() {
    let mut case = case(&json!([{"name": "a"}, {"name": "b"}]), &json!({}), &[("a", "new")]);
    case.bundle.missing = vec!["b".to_owned()];
    let old = [("a", "old"), ("b", "last")];
    let wanted = pairs(&[("a", "new"), ("b", "last")]);
    assert_eq!(case.shown(&old), (wanted.clone(), Some(reasons::SECRETS_MISSING)));
    case.bundle.missing = vec![];
    case.bundle.denied = vec!["b".to_owned()];
    assert_eq!(case.shown(&old), (wanted, Some(reasons::SECRETS_DENIED)));
    // Never made without it.
    let (reason, message) = case.refused(&[]);
    assert_eq!(reason, reasons::SECRETS_DENIED);
    assert!(message.contains("`b`"), "{message}");
}

#[test]
fn an_empty_answer_writes_nothing() {
    for old in [&[][..], &[("a", "last")][..]] {
        let (reason, message) = case(&Value::Null, &json!({}), &[]).refused(old);
        assert_eq!(reason, reasons::SECRETS_MISSING);
        assert!(message.contains("stays as it is"), "{message}");
    }
    let optional = case(&json!([{"name": "a", "optional": true}]), &json!({}), &[]);
    assert_eq!(optional.refused(&[("a", "last")]).0, reasons::SECRETS_MISSING);
}

#[test]
fn an_optional_secret_that_is_gone_takes_its_entry_with_it() {
    let secrets = json!([{"name": "a"}, {"name": "b", "optional": true}]);
    let case = case(&secrets, &json!({}), &[("a", "1")]);
    assert_eq!(case.shown(&[("a", "1"), ("b", "2")]), (pairs(&[("a", "1")]), None));
}

#[test]
fn a_template_that_cannot_be_rendered_keeps_the_last_text_and_names_the_key() {
    let data = json!([{"key": "url", "template": "{{ secrets.absent }}"}]);
    let case = case(&json!([{"name": "db"}]), &json!({"data": data}), &[("db", "canary")]);
    assert_eq!(
        case.shown(&[("url", "last")]),
        (pairs(&[("url", "last")]), Some(reasons::TEMPLATE_FAILED))
    );
    let (reason, message) = case.refused(&[]);
    assert_eq!(reason, reasons::TEMPLATE_FAILED);
    assert!(message.contains("absent") && !message.contains("canary"), "{message}");
}

#[test]
fn a_type_without_what_it_needs_is_refused_before_kubernetes_does() {
    let tls = case(&Value::Null, &json!({"type": "kubernetes.io/tls"}), &[("tls.crt", "x")]);
    let (reason, message) = tls.refused(&[]);
    assert!(
        reason == reasons::SECRETS_MISSING && message.contains("`tls.key`"),
        "{message}"
    );
    let docker = |value: &str| {
        case(
            &Value::Null,
            &json!({"type": "kubernetes.io/dockerconfigjson"}),
            &[(".dockerconfigjson", value)],
        )
    };
    assert_eq!(docker("no canary").refused(&[]).0, reasons::INVALID_VALUE);
    assert!(docker(r#"{"auths": {}}"#).made(&[]).is_ok());
}

#[test]
fn more_than_a_secret_holds_is_refused_with_the_limit() {
    let half = "x".repeat(MAX_BYTES / 2);
    assert!(
        case(&Value::Null, &json!({}), &[("a", &half), ("b", &half)])
            .made(&[])
            .is_ok()
    );
    let (reason, message) = case(&Value::Null, &json!({}), &[("a", &half), ("b", &half), ("c", "1")]).refused(&[]);
    assert_eq!(reason, reasons::TOO_LARGE);
    assert!(message.contains("1 MiB"), "{message}");
}
