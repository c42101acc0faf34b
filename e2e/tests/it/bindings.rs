//! What a SecretBinding says of itself, and what it brings to its pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use sealpod_core::kubernetes::controls;
use sealpod_core::wire::Edit;
use sealpod_core::wire::management::UpdateVersion;
use sealpod_core::wire::org::{ServiceAccount, SubjectType};
use sealpod_crds::{Application, Environment, SecretBinding, SecretState};
use sealpod_e2e::sandbox::APPLICATION;
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::{Value, json};

mod keys;

/// How soon a change on the server shows.
const SOON: Duration = Duration::from_secs(15);
/// How long the kubelet may take to bring a Secret to a running pod, and a test machine to be slow.
const KUBELET: Duration = Duration::from_mins(3);

async fn apply(t: &Sandbox, name: &str, spec: Value) -> Result<SecretBinding> {
    let object = json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": name}, "spec": spec,
    });
    let parameters = PatchParams::apply("e2e").force();
    let applied = t
        .api::<SecretBinding>()
        .patch(name, &parameters, &Patch::Apply(&object))
        .await;
    applied.with_context(|| format!("the binding {name} is taken"))
}

/// A spec on the test's application and `prod`, with these fields.
fn spec(fields: &Value) -> Value {
    let mut spec = json!({"applicationRef": {"name": APPLICATION}, "environment": "prod"});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

async fn reason(t: &Sandbox, binding: &str, condition: &str) -> Result<(String, String, String)> {
    let binding = t.api::<SecretBinding>().get(binding).await?;
    let status = binding.status.unwrap_or_default();
    let found = status.conditions.iter().find(|c| c.type_ == condition);
    let found = found.with_context(|| format!("there is no {condition} yet"))?;
    Ok((found.status.clone(), found.reason.clone(), found.message.clone()))
}

async fn until(
    t: &Sandbox,
    binding: &str,
    condition: &str,
    status: &str,
    why: &str,
    within: Duration,
) -> Result<String> {
    let what = format!("{condition}={status} {why} of {binding}");
    eventually(&what, within, async || {
        let (now, reason, message) = reason(t, binding, condition).await?;
        ensure!(now == status && reason == why, "{condition}={now} {reason}: {message}");
        Ok(message)
    })
    .await
}

async fn account(t: &Sandbox, binding: &str) -> Result<ServiceAccount> {
    let end = format!("/{}/{binding}", t.namespace);
    let accounts = t.server().await?.org(ORGANIZATION).service_accounts(None).await?;
    let found = accounts.into_iter().find(|account| account.name.ends_with(&end));
    found.with_context(|| format!("no account ends with {end}"))
}

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

#[test]
fn every_field_reaches_a_pod_and_so_does_an_edit_of_a_running_one() -> Result<()> {
    on_cluster(async |t| {
        let application: Application = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": APPLICATION},
            "spec": {
                "slug": t.namespace, "deletionPolicy": "Delete",
                "environments": [{"name": "prod", "configurations": {"LOG_LEVEL": "debug"}}],
            },
        }))?;
        t.create(&application).await?;
        t.until_ready_is::<Application>(APPLICATION, "True").await?;
        for (name, value) in [
            ("password", "one"),
            ("cert", "aGVsbG8="),
            ("tls-a", "A"),
            ("later", "edited in"),
        ] {
            t.set("prod", name, value).await?;
        }
        let fields = json!({
            "secrets": [
                {"name": "password", "path": "db/password", "mode": 0o444, "version": 1},
                {"name": "cert", "decode": "base64"},
                {"name": "absent", "optional": true},
                {"pattern": "tls-*", "path": "tls", "optional": false},
            ],
            "configurations": {"format": "env", "path": "app.env"},
            "files": [
                {"path": "some.json", "format": "json", "include": [{"name": "password"}]},
                {"path": "app.ini", "format": "template", "template": "p={{ secrets.password }};{{ configurations.LOG_LEVEL }}\n"},
            ],
            "mountPath": "/etc/app", "sizeLimit": "1Mi", "mode": 0o440,
            "podSelector": {"matchLabels": {"app": "web"}}, "serviceAccountNames": ["default"],
            "refreshInterval": "5s", "watch": true, "staleness": {"max": "1h", "then": "Keep"},
            "onChange": {"http": {"port": 8080, "path": "/reload"}},
            "keyRotation": {"interval": "1h", "overlap": "10m"},
            "kubernetesSecret": {"name": "copy", "data": [{"key": "p", "secret": "password"}]},
        });
        apply(t, "db", spec(&fields)).await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let mut template = pods::template("db", &[app]);
        template["metadata"]["labels"]["app"] = json!("web");
        t.running("app", pods::pod("app", template)?).await?;
        let read = "cd /etc/app && cat db/password cert tls/tls-a app.env some.json app.ini";
        let text = t.exec("app", "app", read).await?;
        for part in [
            "one",
            "hello",
            "A",
            "LOG_LEVEL=",
            "debug",
            "\"password\"",
            "p=one;debug",
        ] {
            ensure!(text.contains(part), "{part} is not in {text}");
        }

        let status = eventually("the pod to be counted", Duration::from_mins(1), async || {
            let status = t.api::<SecretBinding>().get("db").await?.status.unwrap_or_default();
            let pods = status.pods.context("nobody has counted")?;
            ensure!((pods.injected, pods.up_to_date, pods.stale) == (1, 1, 0), "{pods:?}");
            Ok(status)
        })
        .await?;
        let shown: Vec<_> = status.secrets.iter().map(|s| (s.name.as_str(), s.state)).collect();
        let want = [
            ("absent", SecretState::Missing),
            ("cert", SecretState::Active),
            ("password", SecretState::Active),
            ("tls-a", SecretState::Active),
        ];
        ensure!(shown == want, "{shown:?}");

        let mut edited = fields;
        edited["secrets"] = json!([{"name": "password", "path": "db/password", "version": 1}, {"name": "later"}]);
        edited["files"] = json!([]);
        apply(t, "db", spec(&edited)).await?;
        eventually("the edit to reach the running pod", KUBELET, async || {
            let text = t.exec("app", "app", "cd /etc/app && cat later && ls -A").await?;
            ensure!(text.contains("edited in") && !text.contains("tls"), "{text}");
            Ok(())
        })
        .await?;
        let server = t.server().await?;
        let account = account(t, "db").await?;
        let rules = server
            .org(ORGANIZATION)
            .acl_rules_of(SubjectType::ServiceAccount, account.id)
            .await?;
        let mut patterns: Vec<_> = rules.iter().map(|rule| rule.key_pattern.as_str()).collect();
        patterns.sort_unstable();
        ensure!(
            patterns == ["later", "password"],
            "what is no longer named may no longer be read: {patterns:?}"
        );
        Ok(())
    })
}

#[test]
fn every_reason_is_told_and_goes_when_its_cause_does() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        let taken: Application = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": "taken"},
            "spec": {"slug": t.namespace},
        }))?;
        t.create(&taken).await?;
        for (name, value) in [("here", "v"), ("off", "v"), ("no/file", "v")] {
            t.set("prod", name, value).await?;
        }
        let server = t.server().await?;
        let switch = async |enabled: bool| {
            let body = UpdateVersion {
                is_enabled: Some(enabled),
                expires_at: Edit::Keep,
                not_before: Edit::Keep,
            };
            let management = server.management();
            management.update_version(&t.namespace, "off", "prod", 1, &body).await
        };
        switch(false).await?;
        let foreign: Secret = serde_json::from_value(json!({"metadata": {"name": "owned-sealpod-key"}}))?;
        t.create(&foreign).await?;
        let template = json!([{"path": "a", "format": "template", "template": "{{ x"}]);
        let cases = [
            (
                "none",
                json!({"applicationRef": {"name": "nobody"}}),
                "ApplicationNotFound",
            ),
            (
                "taken",
                json!({"applicationRef": {"name": "taken"}}),
                "ApplicationNotReady",
            ),
            (
                "abroad",
                json!({"applicationRef": {"name": "x", "namespace": "kube-system"}}),
                "NamespaceNotAdmitted",
            ),
            ("qa", json!({"environment": "qa"}), "EnvironmentNotFound"),
            ("broken", json!({"files": template}), "InvalidSpec"),
            (
                "twice",
                json!({"secrets": [{"name": "a"}, {"name": "b", "path": "a"}]}),
                "PathCollision",
            ),
            ("owned", json!({}), "SecretNotOwned"),
            ("missing", json!({"secrets": [{"name": "absent"}]}), "SecretsMissing"),
            ("inactive", json!({"secrets": [{"name": "off"}]}), "SecretsInactive"),
        ];
        for (name, fields, _) in &cases {
            apply(t, name, spec(fields)).await?;
        }
        apply(t, "all", spec(&json!({}))).await?;
        for (name, _, why) in &cases {
            let message = until(t, name, "Ready", "False", why, Duration::from_mins(1)).await?;
            ensure!(message.contains(':'), "it says what to change: {message}");
        }
        until(t, "all", "SecretsResolved", "False", "NeedsPath", SOON).await?;
        until(t, "all", "Ready", "True", "Synced", SOON).await?;

        // None of these is an edit of a binding; the server's changes are told.
        switch(true).await?;
        t.set("prod", "absent", "now").await?;
        until(t, "inactive", "Ready", "True", "Synced", SOON).await?;
        until(t, "missing", "Ready", "True", "Synced", SOON).await?;
        switch(false).await?;
        until(t, "inactive", "Ready", "False", "SecretsInactive", SOON).await?;
        t.api::<Secret>()
            .delete("owned-sealpod-key", &DeleteParams::default())
            .await?;
        let now = json!({"metadata": {"annotations": {controls::RECONCILE_AT: "now"}}});
        let bindings = t.api::<SecretBinding>();
        bindings
            .patch_metadata("owned", &PatchParams::default(), &Patch::Merge(now))
            .await?;
        until(t, "owned", "Ready", "True", "Synced", SOON).await?;
        apply(t, "qa", spec(&json!({}))).await?;
        until(t, "qa", "Ready", "True", "Synced", SOON).await?;
        Ok(())
    })
}

#[test]
fn another_namespace_reads_while_it_is_admitted_and_not_a_moment_longer() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "password", "shared").await?;
        let namespaces: Api<Namespace> = Api::all(t.client());
        let guest = format!("{}-guest", t.namespace);
        let labels = json!({sealpod_e2e::world::TEST_LABEL.0: sealpod_e2e::world::TEST_LABEL.1, "team": "a"});
        let object: Namespace = serde_json::from_value(json!({"metadata": {"name": guest, "labels": labels}}))?;
        namespaces.create(&PostParams::default(), &object).await?;
        let bindings: Api<SecretBinding> = Api::namespaced(t.client(), &guest);
        let binding: SecretBinding = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": "db"},
            "spec": {"applicationRef": {"name": APPLICATION, "namespace": t.namespace}, "environment": "prod"},
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
        let is = async |why: &str| {
            eventually(
                &format!("the guest's binding to be {why}"),
                Duration::from_mins(1),
                async || {
                    let status = bindings.get("db").await?.status.unwrap_or_default();
                    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
                    ensure!(ready.is_some_and(|ready| ready.reason == why), "{ready:?}");
                    Ok(())
                },
            )
            .await
        };
        is("NamespaceNotAdmitted").await?;
        let admit = async |allowed: Value| {
            let patch = json!({"spec": {"allowedNamespaces": allowed}});
            let applications = t.api::<Application>();
            applications
                .patch(APPLICATION, &PatchParams::default(), &Patch::Merge(patch))
                .await
        };
        admit(json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}})).await?;
        is("Synced").await?;
        let end = format!("/{guest}/db");
        let server = t.server().await?;
        let org = server.org(ORGANIZATION);
        let accounts = org.service_accounts(None).await?;
        let account = accounts
            .iter()
            .find(|a| a.name.ends_with(&end))
            .context("it has an account")?;
        ensure!(org.acl_rules_of(SubjectType::ServiceAccount, account.id).await?.len() == 1);
        let label = json!({"metadata": {"labels": {"team": "b"}}});
        namespaces
            .patch_metadata(&guest, &PatchParams::default(), &Patch::Merge(label))
            .await?;
        is("NamespaceNotAdmitted").await?;
        ensure!(
            org.acl_rules_of(SubjectType::ServiceAccount, account.id)
                .await?
                .is_empty()
        );
        admit(json!({"from": "All", "selector": null})).await?;
        is("Synced").await?;
        admit(json!({"from": "Same"})).await?;
        is("NamespaceNotAdmitted").await?;
        namespaces.delete(&guest, &DeleteParams::default()).await?;
        Ok(())
    })
}
