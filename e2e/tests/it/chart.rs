//! What the chart renders. Needs helm, but no cluster.

mod injector;

use std::path::Path;

use anyhow::{Context, Result};
use sealpod_e2e::install::chart;
use sealpod_e2e::settings::Settings;
use sealpod_e2e::tools::{Tools, output, text};
use sealpod_e2e::world::RUNTIME;
use serde::Deserialize;
use serde_json::{Value, json};

/// The objects that the chart renders with these arguments.
fn render(arguments: &[&str]) -> Result<Vec<Value>> {
    let tools = Tools::new(&Settings::from_env()?);
    let mut command = tools.helm(["template", "sealpod"]);
    command.arg(chart()).args(arguments);
    let yaml = RUNTIME.block_on(text(command))?;
    let documents = serde_yaml::Deserializer::from_str(&yaml).map(Value::deserialize);
    let documents = documents.collect::<Result<Vec<_>, _>>().context("helm prints YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Arguments for each of the chart's examples of values.
fn examples() -> Result<Vec<Vec<String>>> {
    let mut files = Vec::new();
    for entry in chart().join("ci").read_dir().context("charts/sealpod/ci is a folder")? {
        files.push(vec![
            "--namespace=sealpod".to_owned(),
            format!("--values={}", entry?.path().display()),
        ]);
    }
    assert!(files.len() >= 4, "the examples are there");
    Ok(files)
}

fn render_each(mut check: impl FnMut(&str, &[Value])) -> Result<()> {
    for arguments in examples()? {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        check(arguments[1], &render(&arguments)?);
    }
    Ok(())
}

fn names<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a str> {
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect()
}

fn pod_specs(objects: &[Value]) -> Vec<&Value> {
    objects
        .iter()
        .map(|object| &object["spec"]["template"]["spec"])
        .filter(|spec| !spec.is_null())
        .collect()
}

#[test]
fn every_example_of_values_passes_helms_own_checks() -> Result<()> {
    let tools = Tools::new(&Settings::from_env()?);
    for arguments in examples()? {
        let mut lint = tools.helm(["lint", "--strict"]);
        lint.arg(chart()).args(&arguments);
        RUNTIME.block_on(output(lint)).with_context(|| arguments[1].clone())?;
    }
    Ok(())
}

#[test]
fn it_refuses_namespaces_where_it_could_block_the_cluster() -> Result<()> {
    for namespace in ["default", "kube-system"] {
        let error = render(&["--namespace", namespace]).unwrap_err().to_string();
        assert!(error.contains("--namespace sealpod --create-namespace"), "{error}");
    }
    render(&["--namespace", "sealpod"])?;
    Ok(())
}

#[test]
fn it_refuses_values_that_it_does_not_know() -> Result<()> {
    render(&["--namespace", "sealpod", "--set", "injector.replicas=3"])?;
    let error = render(&["--namespace", "sealpod", "--set", "injector.replica=3"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("replica"), "{error}");
    Ok(())
}

#[test]
fn every_pod_is_hardened_in_every_mode() -> Result<()> {
    render_each(|values, objects| {
        let specs = pod_specs(objects);
        assert!(specs.len() >= 3, "{values}");
        for spec in specs {
            assert_eq!(spec["enableServiceLinks"], false, "{values}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{values}");
            assert_eq!(
                spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{values}"
            );
            for container in spec["containers"].as_array().into_iter().flatten() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{values}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{values}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{values}");
                assert!(container["resources"]["requests"].is_object(), "{values}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{values}");
            }
        }
    })
}

#[test]
fn only_the_controllers_account_reaches_secrets_of_other_namespaces() -> Result<()> {
    render_each(|values, objects| {
        for role in objects.iter().filter(|object| object["kind"] == "ClusterRole") {
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            for rule in role["rules"].as_array().into_iter().flatten() {
                let resources = rule["resources"].as_array().into_iter().flatten();
                let all: Vec<_> = resources
                    .chain(rule["verbs"].as_array().into_iter().flatten())
                    .collect();
                assert!(!all.iter().any(|word| *word == "*"), "{values}: {name} has a wildcard");
                let secrets = all.iter().any(|word| *word == "secrets");
                assert!(
                    !secrets || name.ends_with("-controller"),
                    "{values}: {name} reaches all Secrets"
                );
            }
        }
    })
}

#[test]
fn with_watched_namespaces_the_controller_has_roles_and_the_right_to_let_go() -> Result<()> {
    let named = [
        "--namespace=sealpod",
        "--set=controller.watchNamespaces={shop,warehouse}",
    ];
    let objects = render(&named)?;
    let controllers = |kind: &str| -> Vec<(String, String)> {
        let mine = objects.iter().filter(|object| object["kind"] == kind);
        let place = mine.map(|o| (o["metadata"]["namespace"].clone(), o["metadata"]["name"].clone()));
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let place = place.map(|(namespace, name)| (text(namespace), text(name)));
        place.filter(|(_, name)| name.contains("controller")).collect()
    };
    // Beside what lets a namespace go that took its Role along.
    let everywhere = objects.iter().filter(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        object["kind"] == "ClusterRole" && name.contains("controller")
    });
    let everywhere: Vec<_> = everywhere.map(|role| &role["rules"]).collect();
    let kinds = ["applications", "environments", "secretbindings"];
    let let_go = json!([
        {"apiGroups": ["sealpod.dev"], "resources": kinds, "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ]);
    assert_eq!(everywhere, [&let_go]);
    let places: Vec<_> = controllers("Role")
        .into_iter()
        .map(|(namespace, _)| namespace)
        .collect();
    assert_eq!(places, ["kube-system", "shop", "warehouse", "sealpod"]);
    assert_eq!(controllers("RoleBinding").len(), 4);
    for role in objects.iter().filter(|object| object["kind"] == "Role") {
        let namespace = &role["metadata"]["namespace"];
        for rule in role["rules"].as_array().into_iter().flatten() {
            if rule["resources"][0] == "namespaces" {
                assert_eq!(rule["resourceNames"][0], *namespace, "only the one that it is in");
            }
        }
        assert!(
            namespace != "kube-system" || !role.to_string().contains("secrets"),
            "{role}"
        );
    }
    let named = [named[0], named[1], "--set=controller.clusterId=c1"];
    let objects = render(&named)?;
    assert!(
        !objects
            .iter()
            .any(|object| object["metadata"]["namespace"] == "kube-system")
    );
    Ok(())
}

#[test]
fn the_controller_changes_two_secrets_of_the_release_by_name_and_none_that_others_bring() -> Result<()> {
    let beside_the_lease = |more: &[&str]| -> Result<(Value, bool)> {
        let arguments: Vec<_> = ["--namespace=sealpod"].iter().chain(more).copied().collect();
        let objects = render(&arguments)?;
        let find = |kind: &str| {
            let mine = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == "sealpod-controller";
            objects.iter().find(mine).with_context(|| format!("a {kind}"))
        };
        let rules = find("Role")?["rules"].as_array().context("it has rules")?;
        let rest = rules
            .iter()
            .filter(|rule| rule["resources"][0] != "leases")
            .cloned()
            .collect();
        let is_told = find("Deployment")?.to_string().contains("SEALPOD_SERVER_CA_SECRET");
        Ok((rest, is_told))
    };
    let renewal = json!([{
        "apiGroups": [""], "resources": ["secrets"],
        "resourceNames": ["sealpod-server-ca", "sealpod-server-tls"], "verbs": ["get", "update"],
    }]);
    assert_eq!(beside_the_lease(&[])?, (renewal, true));
    let given = ["--set=tls.mode=existingSecret", "--set=tls.existingSecret.name=my-tls"];
    assert_eq!(beside_the_lease(&given)?, (json!([]), false));
    Ok(())
}

#[test]
fn every_part_is_scraped_where_the_cluster_knows_how() -> Result<()> {
    let kinds = |more: &[&str]| -> Result<Vec<String>> {
        let arguments: Vec<_> = ["--namespace=sealpod"].iter().chain(more).copied().collect();
        let objects = render(&arguments)?;
        Ok(objects
            .iter()
            .filter_map(|o| o["kind"].as_str().map(str::to_owned))
            .collect())
    };
    let monitors = |kinds: &[String]| kinds.iter().filter(|one| *one == "ServiceMonitor").count();
    assert_eq!(monitors(&kinds(&[])?), 0);
    let known = "--api-versions=monitoring.coreos.com/v1";
    assert_eq!(monitors(&kinds(&[known])?), 3);
    let off = kinds(&[known, "--set=metrics.serviceMonitor.enabled=false"])?;
    assert_eq!(monitors(&off), 0);
    let alerts = [
        "--namespace=sealpod",
        known,
        "--set=metrics.prometheusRule.enabled=true",
    ];
    let refused = render(&alerts).map(drop).unwrap_err().to_string();
    assert!(refused.contains("metrics.networkPolicy.from"), "{refused}");
    let scraped = render(
        &[
            &alerts[..],
            &["--set=metrics.networkPolicy.from[0].podSelector.matchLabels.app=prometheus"],
        ]
        .concat(),
    )?;
    let endpoints = |o: &Value| o["kind"] == "ServiceMonitor" && o["spec"]["endpoints"][0]["honorLabels"] == true;
    assert_eq!(scraped.iter().filter(|o| endpoints(o)).count(), 3);
    let server = |kind: &str, name: &str| {
        let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        scraped.iter().find(is_it).with_context(|| format!("no {kind} {name}"))
    };
    let (service, pods) = (
        server("Service", "sealpod-api-server-metrics")?,
        server("StatefulSet", "sealpod-api-server")?,
    );
    let port = &service["spec"]["ports"][0];
    let container = &pods["spec"]["template"]["spec"]["containers"][0];
    let named = json!({"name": port["targetPort"], "containerPort": port["port"]});
    assert_eq!(container["ports"][1], named);
    let rules = &server("PrometheusRule", "sealpod")?["spec"]["groups"][0]["rules"];
    let rules = rules.as_array().context("it has rules")?;
    assert!(
        rules.len() > 5
            && rules
                .iter()
                .all(|rule| rule["alert"].is_string() && rule["expr"].is_string())
    );
    assert!(
        !kinds(&[known])?.contains(&"PrometheusRule".to_owned()),
        "only where it is asked for"
    );
    let with = render(&["--namespace=sealpod", "--set=metrics.dashboards.enabled=true"])?;
    for part in ["controller", "injector"] {
        let file = format!("sealpod-{part}.json");
        let mut texts = with.iter().filter_map(|object| object["data"][&file].as_str());
        let json: Value = serde_json::from_str(texts.next().context("no dashboard")?)?;
        assert_eq!(json["uid"], format!("sealpod-{part}"));
    }
    Ok(())
}

/// A full disk makes it not ready, and reads of values go on.
#[test]
fn the_api_server_is_reached_also_while_it_is_not_ready() -> Result<()> {
    let mut seen = 0;
    render_each(|values, objects| {
        let named = |kind: &str| {
            let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
            of_kind.find(|object| {
                object["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| name.ends_with("-api-server"))
            })
        };
        let Some(server) = named("StatefulSet") else { return };
        seen += 1;
        assert_eq!(server["spec"]["replicas"], 1, "{values}");
        let service = named("Service").expect("a server has its Service");
        assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "{values}");
    })?;
    assert!(seen > 0, "no example has a server");
    Ok(())
}

#[test]
fn the_bootstrap_job_is_named_after_its_spec() -> Result<()> {
    let job = |arguments: &[&str]| -> Result<Vec<String>> {
        let arguments: Vec<_> = ["--namespace=sealpod"].iter().chain(arguments).copied().collect();
        Ok(names(&render(&arguments)?, "Job")
            .into_iter()
            .map(str::to_owned)
            .collect())
    };
    let first = job(&[])?;
    assert_eq!(first, job(&["--set", "injector.replicas=3"])?, "the same spec");
    assert_ne!(
        first,
        job(&["--set-string", "image.tag=other"])?,
        "another spec needs another Job"
    );
    let own = Path::new("ci/existing-secrets-values.yaml");
    let own = format!("--values={}", chart().join(own).display());
    assert!(
        job(&[&own])?.is_empty(),
        "with keys of one's own there is nothing to make"
    );
    Ok(())
}
