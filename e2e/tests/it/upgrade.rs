//! Definitions of before, replaced by those of now under objects that are there.
//!
//! In a group of their own, because the cluster has one set of the real ones for all tests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use sealpod_e2e::{Sandbox, eventually, on_cluster};
use serde_json::{Value, json};

const GROUP: &str = "before.sealpod.dev";
const DEFINITIONS: Duration = Duration::from_secs(30);

/// The definitions of the first version that people could install, which every later one has to take over from.
const BEFORE: [&str; 3] = [
    include_str!("before/applications.yaml"),
    include_str!("before/environments.yaml"),
    include_str!("before/secretbindings.yaml"),
];

fn in_our_group(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let names = &mut definition.spec.names;
    // Short names are the cluster's, and taken by the real ones.
    (names.short_names, names.categories) = (None, None);
    definition.metadata.name = Some(format!("{}.{GROUP}", names.plural));
    GROUP.clone_into(&mut definition.spec.group);
    definition
}

async fn apply(t: &Sandbox, definitions: &[CustomResourceDefinition]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(t.client());
    for definition in definitions {
        let parameters = PatchParams::apply("sealpod-e2e").force();
        let applied = api
            .patch(&definition.name_any(), &parameters, &Patch::Apply(definition))
            .await?;
        let generation = applied.metadata.generation;
        eventually("the definition to be served", DEFINITIONS, async || {
            let now = api.get(&definition.name_any()).await?;
            ensure!(now.metadata.generation == generation, "it was changed meanwhile");
            let conditions = now.status.unwrap_or_default().conditions.unwrap_or_default();
            let established = |c: &&_| {
                let c: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition = c;
                c.type_ == "Established" && c.status == "True"
            };
            conditions.iter().find(established).map(drop).context("it is not established")
        })
        .await?;
    }
    Ok(())
}

fn objects(t: &Sandbox, definition: &CustomResourceDefinition) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: format!("{GROUP}/v1alpha1"),
        kind: definition.spec.names.kind.clone(),
        plural: definition.spec.names.plural.clone(),
    };
    Api::namespaced_with(t.client(), &t.namespace, &resource)
}

/// An object with every field that there was.
fn object(kind: &str) -> Value {
    let spec = match kind {
        "Application" => json!({
            "displayName": "Shop", "slug": "shop", "description": "All of it", "deletionPolicy": "Delete",
            "environments": [{"name": "prod"}, {"name": "Staging", "slug": "staging"}],
        }),
        "Environment" => json!({
            "applicationRef": {"name": "shop"}, "displayName": "Production", "slug": "prod", "deletionPolicy": "Delete",
        }),
        _ => json!({
            "applicationRef": {"name": "shop"}, "environment": "prod", "mountPath": "/etc/secrets", "sizeLimit": "1Mi",
            "mode": 288, "podSelector": {"matchLabels": {"app": "shop"}}, "serviceAccountNames": ["shop"],
            "refreshInterval": "1m", "watch": false, "keyRotation": {"interval": "48h", "overlap": "2h"},
            "secrets": [
                {"name": "db/password", "path": "db/password", "mode": 256, "optional": true, "version": 3, "decode": "base64"},
                {"pattern": "tls-*", "path": "tls"},
            ],
        }),
    };
    json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind, "metadata": {"name": "shop"}, "spec": spec})
}

#[test]
fn objects_of_the_definitions_of_before_live_on_under_those_of_now() -> Result<()> {
    on_cluster(async |t| {
        let before = BEFORE.map(|yaml| serde_yaml::from_str(yaml).expect("it was a definition"));
        let before = before.map(in_our_group);
        apply(t, &before).await?;
        let mut specs = Vec::new();
        for definition in &before {
            let object = serde_json::from_value(object(&definition.spec.names.kind))?;
            // What serves a definition follows it a moment later.
            let made = eventually("the first object", DEFINITIONS, async || {
                Ok(objects(t, definition).create(&PostParams::default(), &object).await?)
            })
            .await?;
            specs.push(made.data["spec"].clone());
        }

        let now: Vec<_> = sealpod_crds::all().into_iter().map(in_our_group).collect();
        apply(t, &now).await?;
        for (definition, before) in now.iter().zip(&specs) {
            let (api, kind) = (objects(t, definition), &definition.spec.names.kind);
            let read = api.get("shop").await?.data["spec"].clone();
            for (field, value) in before.as_object().into_iter().flatten() {
                assert_eq!(&read[field], value, "{kind} spec.{field}");
            }
            // An edit is checked whole, by the rules of now.
            let label = json!({"metadata": {"labels": {"edited": "true"}}});
            let edited = api.patch("shop", &PatchParams::default(), &Patch::Merge(&label)).await;
            edited.with_context(|| format!("{kind} cannot be edited any more"))?;
        }
        let api: Api<CustomResourceDefinition> = Api::all(t.client());
        for definition in &now {
            api.delete(&definition.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    })
}
