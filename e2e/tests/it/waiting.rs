//! Tools that know kstatus, such as Helm and Flux: what they take our objects for.

use std::fs;

use anyhow::{Result, ensure};
use sealpod_crds::{Application, SecretBinding};
use sealpod_e2e::sandbox::Conditions;
use sealpod_e2e::tools::output;
use sealpod_e2e::{Sandbox, on_cluster};
use serde_json::{Value, json};

/// Installs a chart that holds these objects, and waits until Helm takes them for ready.
async fn install(t: &Sandbox, release: &str, objects: &[Value]) -> Result<()> {
    let chart = tempfile::tempdir()?;
    fs::create_dir(chart.path().join("templates"))?;
    let about = format!("apiVersion: v2\nname: {release}\nversion: 0.1.0\n");
    fs::write(chart.path().join("Chart.yaml"), about)?;
    for (at, object) in objects.iter().enumerate() {
        // JSON is YAML.
        fs::write(chart.path().join(format!("templates/{at}.yaml")), object.to_string())?;
    }
    let namespace = format!("--namespace={}", t.namespace);
    let mut helm = t
        .tools()
        .helm(["install", release, &namespace, "--wait", "--timeout=3m"]);
    helm.arg(chart.path());
    output(helm).await.map(drop)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[test]
fn helm_waits_until_objects_are_ready() -> Result<()> {
    on_cluster(async |t| {
        let application = json!({"slug": t.namespace, "deletionPolicy": "Delete", "environments": [{"name": "prod"}]});
        let binding = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
        let objects = [
            object("Application", "shop", &application),
            object("SecretBinding", "db", &binding),
        ];
        install(t, "good", &objects).await?;
        let application = t.api::<Application>().get("shop").await?;
        let bound = t.api::<SecretBinding>().get("db").await?;
        for conditions in [application.conditions(), bound.conditions()] {
            let ready = conditions.iter().find(|c| c.type_ == "Ready");
            ensure!(ready.is_some_and(|ready| ready.status == "True"), "{ready:?}");
        }
        Ok(())
    })
}
