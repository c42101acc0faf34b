//! What a SecretBinding says of itself.

use anyhow::Result;
use sealpod_crds::{Environment, SecretBinding};
use sealpod_e2e::on_cluster;
use sealpod_e2e::sandbox::APPLICATION;
use serde_json::json;

#[test]
fn a_binding_on_an_unknown_environment_says_what_to_fix_and_heals_when_it_appears() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["dev"]).await?;
        t.binding("db", "staging", &["password"]).await?;
        let ready = t.until_ready_is::<SecretBinding>("db", "False").await?;
        assert!(ready.reason.contains("Environment"), "{ready:?}");
        assert!(ready.message.contains("staging"), "it names the environment: {ready:?}");
        assert!(ready.message.contains(APPLICATION), "and where it should be: {ready:?}");

        let environment: Environment = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1",
            "kind": "Environment",
            "metadata": {"name": "staging"},
            "spec": {"applicationRef": {"name": APPLICATION}, "deletionPolicy": "Delete"},
        }))?;
        t.create(&environment).await?;
        t.until_ready_is::<Environment>("staging", "True").await?;
        t.set("staging", "password", "late, but here").await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        Ok(())
    })
}

#[test]
fn a_binding_on_an_unknown_application_names_it() -> Result<()> {
    on_cluster(async |t| {
        t.binding("db", "prod", &["password"]).await?;
        let ready = t.until_ready_is::<SecretBinding>("db", "False").await?;
        assert!(ready.message.contains(APPLICATION), "{ready:?}");
        Ok(())
    })
}

#[test]
fn a_binding_names_the_secret_that_has_no_value() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "present", "here").await?;
        t.binding("db", "prod", &["present", "absent"]).await?;
        let ready = t.until_ready_is::<SecretBinding>("db", "False").await?;
        assert!(
            ready.message.contains("absent") && !ready.message.contains("present"),
            "{ready:?}"
        );
        t.set("prod", "absent", "here too").await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        Ok(())
    })
}
