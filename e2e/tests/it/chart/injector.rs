//! What the chart renders for the injector.

use anyhow::{Context, Result};
use sealpod_e2e::install::chart;
use serde_json::{Value, json};

use super::{names, render, render_each};

#[test]
fn the_webhook_can_only_touch_pods_that_ask_and_never_its_own() -> Result<()> {
    render_each(|values, objects| {
        let configuration = objects
            .iter()
            .find(|object| object["kind"] == "MutatingWebhookConfiguration");
        let webhook = &configuration.expect("the chart has a webhook")["webhooks"][0];
        assert_eq!(
            webhook["objectSelector"]["matchLabels"]["sealpod.dev/inject"], "true",
            "{values}"
        );
        let excluded = webhook["namespaceSelector"]["matchExpressions"][0]["values"].to_string();
        for free in ["kube-system", "kube-node-lease", "sealpod"] {
            assert!(excluded.contains(&format!("\"{free}\"")), "{values}: {excluded}");
        }
        assert_eq!(webhook["failurePolicy"], "Fail", "{values}");
        // Who comes behind us may add a container that needs the mounts, or take a probe of ours.
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded", "{values}");
        let client = &webhook["clientConfig"];
        assert!(
            client["caBundle"].is_null() && client["service"]["path"].is_null(),
            "those are the injector's"
        );
    })
}

#[test]
fn there_is_always_an_injector_that_serves() -> Result<()> {
    let objects = render(&["--namespace=sealpod"])?;
    let of = |kind: &str| {
        let mut found = objects
            .iter()
            .filter(|o| o["kind"] == kind && o["metadata"]["name"] == "sealpod-injector");
        found.next().map(|object| &object["spec"]).context(kind.to_owned())
    };
    let deployment = of("Deployment")?;
    assert_eq!(deployment["replicas"], 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let spread = &deployment["template"]["spec"]["topologySpreadConstraints"];
    assert!(spread.as_array().is_some_and(|all| !all.is_empty()), "{deployment}");
    assert_eq!(of("PodDisruptionBudget")?["maxUnavailable"], 1);
    let ports = &of("NetworkPolicy")?["ingress"];
    assert_eq!(ports, &json!([{"ports": [{"port": "webhook"}]}]));
    Ok(())
}

#[test]
fn the_webhooks_certificate_comes_from_where_the_values_say() -> Result<()> {
    let with = |values: &[&str]| {
        let set: Vec<_> = values.iter().flat_map(|value| ["--set", *value]).collect();
        render(&[&["--namespace=sealpod"], &set[..]].concat())
    };
    let injector = |objects: &[Value]| {
        let is_it =
            |object: &&Value| object["kind"] == "Deployment" && object["metadata"]["name"] == "sealpod-injector";
        let deployment = objects.iter().find(is_it).expect("the chart has an injector");
        let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone();
        let value = |name: &str| {
            let all = env.as_array().into_iter().flatten();
            let mut found = all.filter(|variable| variable["name"] == name);
            found.next().map(|variable| variable["value"].clone())
        };
        ["SEALPOD_CERTIFICATES", "SEALPOD_TLS_SECRET", "SEALPOD_CERTIFICATE_LIFE"].map(value)
    };
    let auto = with(&[])?;
    assert_eq!(injector(&auto)[0].as_ref().unwrap(), "own");
    assert!(injector(&auto)[2].is_some() && names(&auto, "Certificate").is_empty());

    let issued = with(&[
        "injector.certificate.mode=certManager",
        "injector.certificate.issuerRef.name=ca",
    ])?;
    let certificate = issued.iter().find(|object| object["kind"] == "Certificate");
    let spec = &certificate.expect("cert-manager is asked for one")["spec"];
    assert_eq!(spec["dnsNames"][0], "sealpod-injector.sealpod.svc");
    let [certificates, secret, life] = injector(&issued);
    assert_eq!(
        (certificates.unwrap(), secret.as_ref(), life),
        ("given".into(), Some(&spec["secretName"]), None)
    );

    let existing = [
        "injector.certificate.mode=existingSecret",
        "injector.certificate.existingSecret.name=mine",
    ];
    assert_eq!(injector(&with(&existing)?)[1].as_ref().unwrap(), "mine");
    for mode in ["certManager", "existingSecret"] {
        let error = with(&[&format!("injector.certificate.mode={mode}")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("injector.certificate."), "{error}");
    }
    Ok(())
}

/// Whether that is the account of the injector, by either of its names, or a group that it belongs to.
fn is_injector(subject: &Value) -> bool {
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    match (text("kind"), text("name")) {
        ("ServiceAccount", name) => name == "sealpod-injector" && text("namespace") == "sealpod",
        ("User", name) => name == "system:serviceaccount:sealpod:sealpod-injector",
        ("Group", name) => [
            "system:authenticated",
            "system:serviceaccounts",
            "system:serviceaccounts:sealpod",
        ]
        .contains(&name),
        _ => false,
    }
}

/// Everything that the account of the injector is given, by the kind and namespace of who gives it.
fn rights(objects: &[Value]) -> Vec<(&str, &Value, &Value)> {
    let has_it = |object: &&Value| {
        object["subjects"]
            .as_array()
            .is_some_and(|all| all.iter().any(is_injector))
    };
    let role = |binding: &Value| {
        let (to, namespace) = (&binding["roleRef"], &binding["metadata"]["namespace"]);
        let is_it = |object: &&Value| {
            let metadata = &object["metadata"];
            object["kind"] == to["kind"] && metadata["name"] == to["name"] && metadata["namespace"] == *namespace
        };
        objects.iter().find(is_it).expect("a binding has its role")
    };
    let roles = objects.iter().filter(has_it).map(role);
    let all = roles.map(|role| {
        let kind = role["kind"].as_str().unwrap_or_default();
        (kind, &role["metadata"]["namespace"], &role["rules"])
    });
    all.collect()
}

#[test]
fn what_the_injector_is_given_under_another_name_or_by_a_group_is_among_its_rights() {
    let given_to = |subject: Value| {
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": []});
        let binding = json!({
            "kind": "ClusterRoleBinding", "metadata": {"name": "a"}, "subjects": [subject],
            "roleRef": {"kind": "ClusterRole", "name": "a"},
        });
        rights(&[role, binding]).len()
    };
    let account = |name: &str, namespace: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let named = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    for (subject, is_its) in [
        (account("sealpod-injector", "sealpod"), 1),
        (account("sealpod-injector", "shop"), 0),
        (account("sealpod-controller", "sealpod"), 0),
        (named("User", "system:serviceaccount:sealpod:sealpod-injector"), 1),
        (named("User", "sealpod-injector"), 0),
        (named("Group", "system:serviceaccounts"), 1),
        (named("Group", "system:serviceaccounts:sealpod"), 1),
        (named("Group", "system:serviceaccounts:shop"), 0),
    ] {
        assert_eq!(given_to(subject.clone()), is_its, "{subject}");
    }
}

#[test]
fn the_injector_reaches_its_own_secrets_by_name_and_writes_none_that_others_bring() -> Result<()> {
    let everywhere = json!([
        {"apiGroups": ["sealpod.dev"], "resources": ["secretbindings"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["limitranges", "resourcequotas"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": ["sealpod-injector"], "verbs": ["get", "watch", "patch"],
        },
    ]);
    let secrets = |names: &[&str], verbs: &[&str]| json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": verbs});
    let create = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]});
    let own = secrets(&["sealpod-webhook-path"], &["get", "update"]);
    let given = |name: &str| json!([create, own, secrets(&[name], &["get"])]);
    let ours = secrets(&["sealpod-webhook-ca", "sealpod-webhook-tls"], &["get", "update"]);
    for (values, here) in [
        (vec![], json!([create, ours])),
        (
            vec!["--set=mode=certManager", "--set=issuerRef.name=ca"],
            given("sealpod-webhook-certificate"),
        ),
        (
            vec!["--set=mode=existingSecret", "--set=existingSecret.name=mine"],
            given("mine"),
        ),
    ] {
        let values = values
            .iter()
            .map(|value| value.replace("--set=", "--set=injector.certificate."));
        let arguments: Vec<_> = std::iter::once("--namespace=sealpod".to_owned())
            .chain(values)
            .collect();
        let objects = render(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        assert_eq!(
            rights(&objects),
            [
                ("ClusterRole", &Value::Null, &everywhere),
                ("Role", &json!("sealpod"), &here)
            ],
            "{arguments:?}"
        );
    }
    Ok(())
}

#[test]
fn who_may_call_the_injector_is_told_it_with_the_file_that_is_mounted() -> Result<()> {
    let spec = |arguments: &[&str]| -> Result<Value> {
        let objects = render(&[&["--namespace=sealpod"], arguments].concat())?;
        let is_it = |object: &&Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["kind"] == "Deployment" && name.ends_with("-injector")
        };
        let deployment = objects.iter().find(is_it).context("the chart has an injector")?;
        Ok(deployment["spec"]["template"]["spec"].clone())
    };
    let full = format!("--values={}", chart().join("ci/full-values.yaml").display());
    let with = spec(&[&full])?;
    let container = &with["containers"][0];
    let env = container["env"].as_array().context("it has variables")?;
    for (name, value) in [
        ("SEALPOD_CLIENT_CA_FILE", "/etc/sealpod/client-ca/ca.crt"),
        ("SEALPOD_CLIENT_NAME", "kube-apiserver"),
    ] {
        assert!(env.contains(&json!({"name": name, "value": value})), "{name}: {env:?}");
    }
    let mount = json!({"name": "client-ca", "mountPath": "/etc/sealpod/client-ca", "readOnly": true});
    assert_eq!(container["volumeMounts"], json!([mount]));
    let volume = json!({"name": "client-ca", "configMap": {"name": "apiserver-client-ca"}});
    assert_eq!(with["volumes"], json!([volume]));

    let without = spec(&[])?.to_string();
    assert!(
        !without.contains("SEALPOD_CLIENT") && !without.contains("client-ca"),
        "{without}"
    );
    Ok(())
}
