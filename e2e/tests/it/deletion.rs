//! What is left when everything is deleted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use sealpod_client::Error;
use sealpod_core::kubernetes::{OWNER_LABEL, RELEASED_BY_LABEL};
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};

/// Deletes the namespace with all that is in it, and waits until it is gone.
async fn delete_everything(t: &Sandbox) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(t.client());
    namespaces.delete(&t.namespace, &DeleteParams::default()).await?;
    eventually("the namespace to go", Duration::from_secs(90), async || {
        let Some(namespace) = namespaces.get_opt(&t.namespace).await? else {
            return Ok(());
        };
        let conditions = namespace.status.unwrap_or_default().conditions.unwrap_or_default();
        let open: Vec<_> = conditions
            .into_iter()
            .filter(|condition| condition.status == "True")
            .collect();
        ensure!(false, "it is still there: {open:?}");
        Ok(())
    })
    .await
}

/// Fails while an account or a rule of the test is live.
async fn no_access_is_left(t: &Sandbox) -> Result<()> {
    let server = t.server().await?;
    let org = server.org(ORGANIZATION);
    let ours = format!("/{}/", t.namespace);
    let accounts = org.service_accounts(None).await?;
    let accounts: Vec<_> = accounts
        .iter()
        .filter(|account| account.name.contains(&ours))
        .map(|account| &account.name)
        .collect();
    ensure!(accounts.is_empty(), "service accounts are left: {accounts:?}");
    let rules = org.acl_rules().await?;
    let rules: Vec<_> = rules
        .iter()
        .filter(|rule| rule.project_pattern.to_string() == t.namespace)
        .collect();
    ensure!(rules.is_empty(), "rules are left: {rules:?}");
    Ok(())
}

#[test]
fn with_delete_nothing_is_left_behind() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "gone soon").await?;
        t.running_app("app", pods::SLEEP).await?;
        no_access_is_left(t).await.expect_err("there was something to delete");
        delete_everything(t).await?;
        no_access_is_left(t).await?;
        let applications = t.server().await?.management().applications(None).await?;
        let left: Vec<_> = applications
            .iter()
            .filter(|application| application.slug == t.namespace || mentions(application, &t.namespace))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

#[test]
fn with_retain_exactly_the_released_application_is_left() -> Result<()> {
    on_cluster(async |t| {
        t.application("Retain", &["prod"]).await?;
        t.set("prod", "password", "kept").await?;
        t.binding("db", "prod", &["password"]).await?;
        t.until_ready_is::<sealpod_crds::SecretBinding>("db", "True").await?;
        let server = t.server().await?;
        let management = server.management();
        let before = management.application(&t.namespace).await?;
        let owner = before
            .labels
            .get(OWNER_LABEL)
            .context("the application has an owner")?
            .clone();
        delete_everything(t).await?;

        no_access_is_left(t).await?;
        let applications = management.applications(None).await?;
        let left: Vec<_> = applications
            .into_iter()
            .filter(|application| mentions(application, &t.namespace))
            .collect();
        let [left] = left.as_slice() else {
            panic!("expected the released application alone: {left:?}");
        };
        assert_eq!(left.id, before.id);
        assert_eq!(left.labels.get(RELEASED_BY_LABEL), Some(&owner));
        assert_eq!(left.labels.get(OWNER_LABEL), None, "nobody owns it");
        let secret = server
            .org(ORGANIZATION)
            .secret(&t.namespace, "prod", "password")
            .await?;
        assert_eq!(secret.value.expose(), "kept");

        management.delete_application(&t.namespace).await?;
        let gone = management.application(&t.namespace).await;
        assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
        Ok(())
    })
}

#[test]
fn deleting_a_binding_ends_its_key_at_once() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "not for long").await?;
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = t.api();
        let name = sealpod_core::kubernetes::key_secret_name("db");
        secrets.get(&name).await.context("the key Secret")?;
        let bindings: Api<sealpod_crds::SecretBinding> = t.api();
        bindings.delete("db", &DeleteParams::default()).await?;
        eventually("the key to go", Duration::from_mins(1), async || {
            ensure!(bindings.get_opt("db").await?.is_none(), "the binding is still there");
            ensure!(secrets.get_opt(&name).await?.is_none(), "its Secret is still there");
            no_access_is_left(t).await
        })
        .await?;
        t.server()
            .await?
            .management()
            .application(&t.namespace)
            .await
            .context("the application stays")?;
        Ok(())
    })
}

/// Whether a label of the application names the namespace.
fn mentions(application: &sealpod_core::wire::management::Application, namespace: &str) -> bool {
    let part = format!("/{namespace}/");
    application.labels.values().any(|value| value.contains(&part))
}
