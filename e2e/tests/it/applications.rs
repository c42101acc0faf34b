//! Applications and Environments: what they bring to the server, what they leave to others, and what they say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use sealpod_client::{Client, Error};
use sealpod_core::kubernetes::{ADOPTABLE_BY_LABEL, OWNER_LABEL, controls};
use sealpod_core::wire::Labels;
use sealpod_core::wire::management::{
    CreateApplication, CreateConfiguration, UpdateApplication, UpdateConfiguration, UpdateEnvironment,
};
use sealpod_crds::{Application, Environment};
use sealpod_e2e::sandbox::{APPLICATION, CONVERGE};
use sealpod_e2e::tools::text;
use sealpod_e2e::{Sandbox, eventually, on_cluster};
use serde_json::{Value, json};

const KEY: &str = "shop-key";

async fn make(t: &Sandbox, spec: Value) -> Result<Application> {
    let application = json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": APPLICATION}, "spec": spec,
    });
    t.create(&serde_json::from_value::<Application>(application)?).await
}

async fn patch(t: &Sandbox, change: Value) -> Result<Application> {
    let api: Api<Application> = t.api();
    let change = Patch::Merge(&change);
    Ok(api.patch(APPLICATION, &PatchParams::default(), &change).await?)
}

async fn annotate(t: &Sandbox, annotation: &str, value: Option<&str>) -> Result<()> {
    patch(t, json!({"metadata": {"annotations": {annotation: value}}})).await?;
    Ok(())
}

/// The configurations of an environment on the server, as `KEY=value`.
async fn configurations(server: &Client, application: &str, environment: &str) -> Result<Vec<String>> {
    let all = server.management().configurations(application).await?;
    let here = all.into_iter().filter(|c| c.environment_slug == environment);
    Ok(here.map(|c| format!("{}={}", c.key, c.value)).collect())
}

async fn until_configured(t: &Sandbox, environment: &str, want: &[&str]) -> Result<()> {
    let server = t.server().await?;
    eventually(&format!("the configurations of {environment}"), CONVERGE, async || {
        let found = configurations(&server, &t.namespace, environment).await?;
        ensure!(found == want, "the server has {found:?}");
        Ok(())
    })
    .await
}

/// The application's own key, as it is in the Secret.
async fn key(t: &Sandbox) -> Result<String> {
    let secret = t.api::<Secret>().get(KEY).await?;
    let key = secret
        .data
        .unwrap_or_default()
        .remove("api-key")
        .context("it has no key")?;
    Ok(String::from_utf8(key.0)?)
}

/// Whether the server takes this key.
async fn works(t: &Sandbox, key: &str) -> Result<bool> {
    match t.as_application(key).await?.consumer().configurations("local").await {
        Ok(_) => Ok(true),
        Err(Error::Unauthorized(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn everything(t: &Sandbox) -> Value {
    json!({
        "slug": t.namespace, "displayName": "The shop", "description": "sells", "deletionPolicy": "Delete",
        "allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}},
        "apiKeySecretName": KEY,
        "environments": [
            {"name": "Production", "slug": "prod", "configurations": {"LOG_LEVEL": "info", "REGION": "eu"}},
            {"name": "local", "configurations": {"LOG_LEVEL": "debug"}},
            {"name": "old"},
        ],
    })
}

#[test]
fn every_field_is_brought_to_the_server_put_back_and_taken_away() -> Result<()> {
    on_cluster(async |t| {
        make(t, everything(t)).await?;
        t.until_ready_is::<Application>(APPLICATION, "True").await?;
        let qa = json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "Environment", "metadata": {"name": "qa"},
            "spec": {
                "applicationRef": {"name": APPLICATION}, "displayName": "Quality", "deletionPolicy": "Delete",
                "configurations": {"LOG_LEVEL": "trace"},
            },
        });
        t.create(&serde_json::from_value::<Environment>(qa)?).await?;
        t.until_ready_is::<Environment>("qa", "True").await?;
        let server = t.server().await?;
        let management = server.management();
        let application = management.application(&t.namespace).await?;
        assert_eq!(
            (application.name.as_str(), application.description.as_deref()),
            ("The shop", Some("sells"))
        );
        for (environment, want) in [
            ("prod", &["LOG_LEVEL=info", "REGION=eu"][..]),
            ("local", &["LOG_LEVEL=debug"]),
            ("qa", &["LOG_LEVEL=trace"]),
        ] {
            assert_eq!(configurations(&server, &t.namespace, environment).await?, want);
        }
        let first = key(t).await?;
        assert!(works(t, &first).await?);

        // What people see: the list of all kinds, and an event on the object.
        let namespace = format!("--namespace={}", t.namespace);
        let mut all = t.tools().kubectl(["get", "sealpod", &namespace]);
        // What kubectl remembers of the cluster may be of before the kinds were there, and a category that it does not know
        // does not make it ask again.
        all.env("KUBECACHEDIR", std::env::temp_dir().join(&t.namespace));
        let list = text(all).await?;
        for line in [
            ["application.sealpod.dev/shop", &t.namespace, "True"],
            ["environment.sealpod.dev/qa", "qa", "True"],
        ] {
            let found = list.lines().any(|shown| line.iter().all(|word| shown.contains(word)));
            assert!(found, "{line:?} is not in\n{list}");
        }
        for short in ["app", "senv", "sb"] {
            text(t.tools().kubectl(["get", short, &namespace])).await?;
        }
        let events = text(t.tools().kubectl(["get", "events", &namespace, "--output=json"])).await?;
        assert!(events.contains("made the application"), "{events}");
        assert!(
            events.contains("\"Applied\"") && events.contains("\"Synced\""),
            "{events}"
        );
        assert!(!events.contains(&first), "an event holds the key");

        drift(t, &server).await?;
        prune(t, &server).await?;
        rotate(t, &first).await
    })
}

/// Somebody changes what objects set, and something of their own.
async fn drift(t: &Sandbox, server: &Client) -> Result<()> {
    let management = server.management();
    let drifted = |value: &str| UpdateConfiguration {
        value: value.to_owned(),
        description: None,
    };
    management
        .update_configuration(&t.namespace, "prod", "LOG_LEVEL", &drifted("error"))
        .await?;
    management
        .update_configuration(&t.namespace, "qa", "LOG_LEVEL", &drifted("error"))
        .await?;
    let theirs = CreateConfiguration {
        environment_slug: "prod".to_owned(),
        key: "THEIRS".to_owned(),
        value: "1".to_owned(),
        description: None,
    };
    management.create_configuration(&t.namespace, &theirs).await?;
    let renamed = UpdateEnvironment {
        name: "Renamed".to_owned(),
        labels: None,
    };
    management.update_environment(&t.namespace, "prod", &renamed).await?;
    // Whatever the operator waits for: now.
    annotate(t, controls::RECONCILE_AT, Some("first")).await?;
    until_configured(t, "prod", &["LOG_LEVEL=info", "REGION=eu", "THEIRS=1"]).await?;
    eventually("the name to be put back", CONVERGE, async || {
        let name = management.environment(&t.namespace, "prod").await?.name;
        ensure!(name == "Production", "it is {name}");
        Ok(())
    })
    .await?;
    until_configured(t, "qa", &["LOG_LEVEL=trace"]).await
}

/// What is taken out of the spec goes, and nothing else.
async fn prune(t: &Sandbox, server: &Client) -> Result<()> {
    let mut less = everything(t);
    less["environments"] = json!([{"name": "Production", "slug": "prod", "configurations": {"REGION": "us"}}]);
    patch(t, json!({"spec": less})).await?;
    until_configured(t, "prod", &["REGION=us", "THEIRS=1"]).await?;
    until_configured(t, "local", &[]).await?;
    eventually("the environment `old` to go", CONVERGE, async || {
        let environments = server.management().environments(&t.namespace, None).await?;
        let slugs: Vec<_> = environments.into_iter().map(|e| e.slug).collect();
        ensure!(slugs == ["local", "prod", "qa"], "there are {slugs:?}");
        Ok(())
    })
    .await
}

/// The key is replaced when that is asked for, and when it is edited or deleted; the one in use lives on meanwhile.
async fn rotate(t: &Sandbox, first: &str) -> Result<()> {
    let another = async |than: &str| {
        eventually("another key that works", CONVERGE, async || {
            let now = key(t).await?;
            ensure!(now != than && works(t, &now).await?, "there is none");
            Ok(now)
        })
        .await
    };
    annotate(t, controls::ROTATE_KEY, Some("first")).await?;
    let second = another(first).await?;
    assert!(works(t, first).await?, "the earlier key lives through the overlap");
    let secrets: Api<Secret> = t.api();
    let forged = json!({"stringData": {"api-key": "grm_forged"}});
    secrets
        .patch(KEY, &PatchParams::default(), &Patch::Merge(&forged))
        .await?;
    let third = another("grm_forged").await?;
    assert_ne!(third, second);
    secrets.delete(KEY, &DeleteParams::default()).await?;
    another(&third).await?;

    patch(t, json!({"spec": {"apiKeySecretName": null}})).await?;
    eventually("the Secret of the key to go", CONVERGE, async || {
        ensure!(secrets.get_opt(KEY).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

#[test]
fn an_application_of_others_is_taken_over_only_by_wish_and_with_consent() -> Result<()> {
    on_cluster(async |t| {
        let server = t.server().await?;
        let management = server.management();
        let theirs = CreateApplication {
            name: "Theirs".to_owned(),
            description: None,
            slug: Some(t.namespace.clone()),
            labels: Labels::from([("team".to_owned(), "a".to_owned())]),
        };
        let made = management.create_application(&theirs).await?;
        make(
            t,
            json!({"slug": t.namespace, "adopt": true, "deletionPolicy": "Delete"}),
        )
        .await?;
        let refused = t.until_ready_is::<Application>(APPLICATION, "False").await?;
        assert_eq!(refused.reason, "AlreadyExists");
        let consent = format!("\"{ADOPTABLE_BY_LABEL}\": \"");
        let owner = refused
            .message
            .split(&consent)
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let owner = owner.context("the message holds the command")?.to_owned();
        let consents = |to: &str| UpdateApplication {
            name: "Theirs".to_owned(),
            description: None,
            labels: Some(Labels::from([
                ("team".to_owned(), "a".to_owned()),
                (ADOPTABLE_BY_LABEL.to_owned(), to.to_owned()),
            ])),
        };
        // Consent to another is none to this one.
        management
            .update_application(&t.namespace, &consents(&format!("{owner}-2")))
            .await?;
        annotate(t, controls::RECONCILE_AT, Some("first")).await?;
        t.until_ready_is::<Application>(APPLICATION, "False").await?;

        patch(t, json!({"spec": {"adopt": false}})).await?;
        // A look that is under way still has the wish of before.
        t.until_ready_is::<Application>(APPLICATION, "False").await?;
        management.update_application(&t.namespace, &consents(&owner)).await?;
        eventually("a message that asks for the wish", CONVERGE, async || {
            let refused = t.until_ready_is::<Application>(APPLICATION, "False").await?;
            ensure!(
                refused.message.contains("set spec.adopt to true"),
                "{}",
                refused.message
            );
            Ok(())
        })
        .await?;
        patch(t, json!({"spec": {"adopt": true}})).await?;
        t.until_ready_is::<Application>(APPLICATION, "True").await?;
        let taken = management.application(&t.namespace).await?;
        assert_eq!((taken.id, taken.name.as_str()), (made.id, "Theirs"));
        assert_eq!(
            taken.labels,
            Labels::from([("team".to_owned(), "a".to_owned()), (OWNER_LABEL.to_owned(), owner)])
        );
        Ok(())
    })
}

#[test]
fn a_paused_application_stays_as_it_is_and_lets_its_namespace_go() -> Result<()> {
    on_cluster(async |t| {
        make(
            t,
            json!({"slug": t.namespace, "displayName": "Before", "deletionPolicy": "Delete"}),
        )
        .await?;
        t.until_ready_is::<Application>(APPLICATION, "True").await?;
        annotate(t, controls::PAUSED, Some("true")).await?;
        let paused = t.until_ready_is::<Application>(APPLICATION, "Unknown").await?;
        assert_eq!(paused.reason, "Paused");
        patch(t, json!({"spec": {"displayName": "After"}})).await?;
        // Seen in this generation, and nothing done about it.
        t.until_ready_is::<Application>(APPLICATION, "Unknown").await?;
        let server = t.server().await?;
        let management = server.management();
        assert_eq!(management.application(&t.namespace).await?.name, "Before");
        annotate(t, controls::PAUSED, None).await?;
        t.until_ready_is::<Application>(APPLICATION, "True").await?;
        assert_eq!(management.application(&t.namespace).await?.name, "After");

        annotate(t, controls::PAUSED, Some("true")).await?;
        t.until_ready_is::<Application>(APPLICATION, "Unknown").await?;
        let namespaces: Api<Namespace> = Api::all(t.client());
        namespaces.delete(&t.namespace, &DeleteParams::default()).await?;
        eventually("the namespace to go", Duration::from_secs(45), async || {
            ensure!(namespaces.get_opt(&t.namespace).await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        let left = management.application(&t.namespace).await?;
        assert!(left.labels.contains_key(OWNER_LABEL), "nothing was changed: {left:?}");
        management.delete_application(&t.namespace).await?;
        Ok(())
    })
}
