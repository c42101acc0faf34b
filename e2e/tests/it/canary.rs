//! A value is nowhere but in the API's answer and in the file.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, PostParams, Request};
use kube::discovery::{Discovery, verbs};
use kube::{Api, Resource, ResourceExt};
use sealpod_e2e::canary::Canary;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::tools::{output, text};
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::{Value, json};

/// Something that was searched.
struct Place {
    name: String,
    content: Vec<u8>,
}

#[test]
fn a_canary_is_nowhere_but_in_the_api_answer_and_the_file() -> Result<()> {
    on_cluster(async |t| {
        // Nothing of it can be left from another run.
        let value = format!("canary-{}-zQ8kV3xLw7", t.namespace);
        let canary = Canary::new(&value);
        t.delivery("password", &value).await?;
        t.running_app("app", pods::SLEEP).await?;
        // A second version takes it on the ways that only an update goes.
        let second = format!("{value}, again");
        t.set("prod", "password", &second).await?;
        eventually("the second version", pods::START, async || {
            let content = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
            // The first of the two places where it belongs; so the search can find it.
            ensure!(canary.is_in(&content), "the file holds something else");
            ensure!(content == second, "the file is the first one still");
            Ok(())
        })
        .await?;
        let server = t.server().await?;
        let answer = server
            .org(ORGANIZATION)
            .secret(&t.namespace, "prod", "password")
            .await?;
        assert!(canary.is_in(answer.value.expose()), "the second is the API's answer");

        let mut places = objects(t).await?;
        assert!(
            has(&places, &format!("secrets {}/db-sealpod-key", t.namespace)),
            "Secrets were searched"
        );
        assert!(
            has(&places, "leases sealpod/sealpod-controller"),
            "Leases were searched"
        );
        let logs = logs(t).await?;
        assert!(
            has(&logs, &format!("log of {}/app sealpod", t.namespace)),
            "the sidecar's log was searched"
        );
        places.extend(logs);
        places.extend(metrics(t).await?);
        places.extend(processes(t).await?);
        let database = database(t).await?;
        let slug = t.namespace.as_bytes();
        let is_ours = |place: &Place| place.content.windows(slug.len()).any(|window| window == slug);
        assert!(
            database.iter().any(is_ours),
            "the database that was searched holds this application"
        );
        places.extend(database);

        let found: Vec<_> = places
            .iter()
            .filter(|place| canary.is_in(&place.content))
            .map(|place| &place.name)
            .collect();
        assert!(found.is_empty(), "the value is in {found:?}");
        println!("searched {} places", places.len());
        Ok(())
    })
}

fn has(places: &[Place], name: &str) -> bool {
    places
        .iter()
        .any(|place| place.name == name && !place.content.is_empty())
}

/// Every object of the cluster: Secrets, events, statuses, Leases, pods, and whatever else there is.
async fn objects(t: &Sandbox) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    let discovery = Discovery::new(t.client()).run().await?;
    for group in discovery.groups() {
        for (kind, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            // As plain JSON: what others keep in this cluster need not fit any type.
            let path = DynamicObject::url_path(&kind, None);
            let list = t
                .client()
                .request_text(Request::new(path).list(&ListParams::default())?)
                .await;
            let list: Value = serde_json::from_str(&list.with_context(|| format!("cannot list {}", kind.plural))?)?;
            for object in list["items"].as_array().into_iter().flatten() {
                let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
                let namespace = namespace
                    .as_str()
                    .map_or_else(String::new, |namespace| format!("{namespace}/"));
                places.push(Place {
                    name: format!("{} {namespace}{}", kind.plural, name.as_str().unwrap_or_default()),
                    content: object.to_string().into_bytes(),
                });
            }
        }
    }
    Ok(places)
}

/// The logs of every container of the cluster, of the ones before a restart too.
async fn logs(t: &Sandbox) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for pod in Api::<Pod>::all(t.client()).list(&ListParams::default()).await? {
        let namespace = pod.namespace().context("a pod has a namespace")?;
        let pods: Api<Pod> = Api::namespaced(t.client(), &namespace);
        for container in pods::containers(&pod) {
            for previous in [false, true] {
                let which = LogParams {
                    container: Some(container.to_owned()),
                    previous,
                    ..LogParams::default()
                };
                // Fails where there is no log: a container that waits, or that was never started again.
                if let Ok(log) = pods.logs(&pod.name_any(), &which).await {
                    let before = if previous { ", before its restart" } else { "" };
                    places.push(Place {
                        name: format!("log of {namespace}/{} {container}{before}", pod.name_any()),
                        content: log.into_bytes(),
                    });
                }
            }
        }
    }
    Ok(places)
}

/// What the parts tell Prometheus.
async fn metrics(t: &Sandbox) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    for pod in pods.list(&ListParams::default().fields("status.phase=Running")).await? {
        let ports = pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .flat_map(|container| container.ports.iter().flatten());
        for port in ports.filter(|port| port.name.as_deref() == Some("metrics")) {
            let name = pod.name_any();
            let path = format!(
                "/api/v1/namespaces/{NAMESPACE}/pods/{name}:{}/proxy/metrics",
                port.container_port
            );
            let content = output(t.tools().kubectl(["get", "--raw", &path])).await?;
            places.push(Place {
                name: format!("metrics of {name}"),
                content,
            });
        }
    }
    ensure!(
        places.len() >= 3,
        "the metrics of server, controller and injector were searched"
    );
    Ok(places)
}

/// Environments and command lines, as the app sees them.
async fn processes(t: &Sandbox) -> Result<Vec<Place>> {
    let content = t
        .exec("app", "app", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
        .await?;
    Ok(vec![Place {
        name: "processes of the app".to_owned(),
        content: content.into_bytes(),
    }])
}

/// The files of the api-server's volume, read by a pod beside it: its own image has no shell.
async fn database(t: &Sandbox) -> Result<Vec<Place>> {
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    let server = format!("{}-0", object("api-server"));
    let server = pods.get(&server).await?.spec.context("a pod has a spec")?;
    let volumes = server.volumes.unwrap_or_default();
    let data = volumes
        .into_iter()
        .find(|volume| volume.name == "data")
        .context("it has its data")?;
    let name = format!("look-{}", t.namespace);
    let mut reader = pods::container("look", t.image(), 65_532, pods::SLEEP);
    reader["volumeMounts"] = json!([{"name": "data", "mountPath": "/data", "readOnly": true}]);
    let mut template = pods::template("", &[reader]);
    template["metadata"] = json!({});
    template["spec"]["volumes"] = json!([data]);
    // A volume may be attached to one node only.
    template["spec"]["nodeName"] = json!(server.node_name);
    pods.create(&PostParams::default(), &pods::pod(&name, template)?)
        .await?;
    let read = read_files(t, &pods, &name).await;
    pods.delete(&name, &DeleteParams::default()).await?;
    let places = read?;
    ensure!(
        places.iter().any(|place| place.name.ends_with("/sealpod.db")),
        "the database was searched"
    );
    ensure!(
        places.iter().any(|place| place.name.ends_with("/sealpod.db-wal")),
        "its write-ahead log was searched"
    );
    Ok(places)
}

async fn read_files(t: &Sandbox, pods: &Api<Pod>, name: &str) -> Result<Vec<Place>> {
    eventually("the pod beside the api-server", pods::START, async || {
        pods::ready(&pods.get(name).await?)
    })
    .await?;
    let namespace = format!("--namespace={NAMESPACE}");
    let exec = |command: &[&str]| {
        let arguments = ["exec", &namespace, name, "--"]
            .into_iter()
            .chain(command.iter().copied());
        t.tools().kubectl(arguments)
    };
    let mut places = Vec::new();
    for path in text(exec(&["find", "/data", "-type", "f"])).await?.lines() {
        places.push(Place {
            name: format!("the file {path}"),
            content: output(exec(&["cat", path])).await?,
        });
    }
    Ok(places)
}
