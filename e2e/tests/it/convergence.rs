//! Whatever is done to the objects and to what was made of them, the end is what the specs say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use sealpod_client::Client;
use sealpod_core::injection::API_KEY_FILE;
use sealpod_core::kubernetes::key_secret_name;
use sealpod_core::wire::org::{AclRule, ServiceAccount};
use sealpod_crds::{Application, SecretBinding};
use sealpod_e2e::sandbox::{APPLICATION, CONVERGE, Conditions};
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster};
use serde_json::{Value, json};
use tokio::time::sleep;

const BINDINGS: [&str; 4] = ["one", "two", "three", "four"];
const SECRETS: [&str; 3] = ["a", "b", "c"];
const EDITS: usize = 40;
/// Keys that are taken away again and again are made anew only so fast: five within this.
const FIVE_KEYS: Duration = Duration::from_mins(3);
/// A sixth one, which the last edit may have made necessary, is there behind that; from then on an object has as long as any
/// other one has to say that it is ready.
const CALM: Duration = FIVE_KEYS.saturating_add(CONVERGE);
/// Between two edits, so that they meet the controller at work as well as at rest.
const PAUSE: Duration = Duration::from_millis(150);

/// A generator that a printed seed repeats; nothing here has to be unpredictable.
struct Dice(u64);

impl Dice {
    fn cast() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = u64::from(now.subsec_nanos()) | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or_default()
    }

    fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }
}

/// What the specs say: the secrets of each binding that is there.
type Wanted = BTreeMap<&'static str, Vec<&'static str>>;

fn spec(secrets: &[&str]) -> Value {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"applicationRef": {"name": APPLICATION}, "environment": "prod", "secrets": secrets})
}

async fn merge<K>(t: &Sandbox, name: &str, patch: Value) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patched = t
        .api::<K>()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        // It has gone by an earlier edit and is not back yet.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).with_context(|| format!("cannot edit {name}")),
    }
}

async fn delete<K>(t: &Sandbox, name: &str) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    match t.api::<K>().delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).with_context(|| format!("cannot delete {name}")),
    }
}

/// Accounts and rules of the test, as the server has them.
async fn on_the_server(t: &Sandbox, server: &Client) -> Result<(Vec<ServiceAccount>, Vec<AclRule>)> {
    let org = server.org(ORGANIZATION);
    let ours = format!("/{}/", t.namespace);
    let mut accounts = org.service_accounts(None).await?;
    accounts.retain(|account| account.name.contains(&ours));
    let mut rules = org.acl_rules().await?;
    rules.retain(|rule| rule.project_pattern.as_str() == t.namespace);
    Ok((accounts, rules))
}

async fn edit(t: &Sandbox, dice: &mut Dice, wanted: &mut Wanted) -> Result<&'static str> {
    let server = t.server().await?;
    let org = server.org(ORGANIZATION);
    let binding = dice.one_of(&BINDINGS);
    let secret = key_secret_name(binding);
    let (accounts, rules) = on_the_server(t, &server).await?;
    Ok(match dice.below(11) {
        0 | 1 => {
            let secrets = SECRETS[..=dice.below(SECRETS.len())].to_vec();
            if wanted.insert(binding, secrets.clone()).is_none() {
                // One of this name may still be going.
                let api = t.api::<SecretBinding>();
                eventually("the former binding to go", CONVERGE, async || {
                    ensure!(api.get_opt(binding).await?.is_none(), "{binding} is still there");
                    Ok(())
                })
                .await?;
                t.binding(binding, "prod", &secrets).await?;
                "a binding made"
            } else {
                merge::<SecretBinding>(t, binding, json!({"spec": spec(&secrets)})).await?;
                "a binding edited"
            }
        }
        2 => {
            wanted.remove(binding);
            delete::<SecretBinding>(t, binding).await?;
            "a binding deleted"
        }
        3 => {
            delete::<Secret>(t, &secret).await?;
            "a key Secret deleted"
        }
        4 => {
            merge::<Secret>(t, &secret, json!({"stringData": {API_KEY_FILE: "cr_sa_wrong"}})).await?;
            "a key overwritten"
        }
        5 => {
            merge::<Secret>(t, &secret, json!({"metadata": {"labels": null, "annotations": null}})).await?;
            "the marks of a key Secret removed"
        }
        6 => match rules.first() {
            Some(rule) => {
                gone(org.revoke_acl_rule(rule.id).await)?;
                "a rule deleted on the server"
            }
            None => "nothing",
        },
        7 => match accounts.first() {
            Some(account) => {
                gone(org.revoke_service_account(account.id).await)?;
                "an account revoked on the server"
            }
            None => "nothing",
        },
        8 => match accounts.last() {
            Some(account) => {
                gone(org.rotate_service_account(account.id, 0).await.map(drop))?;
                "a key rotated away on the server"
            }
            None => "nothing",
        },
        9 => {
            let environments: &[Value] = &[json!([{"name": "prod"}]), json!([{"name": "prod"}, {"name": "extra"}])];
            let environments = &environments[dice.below(2)];
            merge::<Application>(t, APPLICATION, json!({"spec": {"environments": environments}})).await?;
            "the environments edited"
        }
        _ => {
            let lie = json!({"status": {"serviceAccountID": "00000000-0000-0000-0000-000000000000", "keySecretName": "other"}});
            let api = t.api::<SecretBinding>();
            let patched = api
                .patch_status(binding, &PatchParams::default(), &Patch::Merge(lie))
                .await;
            match patched {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => drop(other?),
            }
            "a status overwritten"
        }
    })
}

/// What the controller did first is not there any more.
fn gone(result: sealpod_client::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}

/// Fails until accounts, rules and keys on both sides are those of the specs.
async fn is_as_wanted(t: &Sandbox, wanted: &Wanted) -> Result<()> {
    let server = t.server().await?;
    let (accounts, rules) = on_the_server(t, &server).await?;
    let name = |account: &ServiceAccount| account.name.rsplit('/').next().unwrap_or_default().to_owned();
    let names: Vec<_> = accounts.iter().map(name).collect();
    let distinct: BTreeSet<_> = names.iter().map(String::as_str).collect();
    ensure!(
        names.len() == distinct.len() && distinct == wanted.keys().copied().collect(),
        "accounts {names:?} instead of {wanted:?}"
    );
    for account in &accounts {
        let binding = name(account);
        let of_it: Vec<_> = rules.iter().filter(|rule| rule.subject_id == account.id).collect();
        let patterns: Vec<_> = of_it.iter().map(|rule| rule.key_pattern.as_str()).collect();
        let secrets = &wanted[binding.as_str()];
        let same: BTreeSet<_> = patterns.iter().copied().collect();
        ensure!(
            patterns.len() == secrets.len() && same == secrets.iter().copied().collect(),
            "{binding} has the rules {patterns:?} instead of {secrets:?}"
        );
        let object = t.api::<Secret>().get(&key_secret_name(&binding)).await?;
        let key = object
            .data
            .unwrap_or_default()
            .remove(API_KEY_FILE)
            .context("there is a key")?;
        let key = String::from_utf8(key.0)?;
        ensure!(
            key.starts_with(&account.key_prefix),
            "the key of {binding} is not the account's latest"
        );
    }
    let ours: BTreeSet<_> = accounts.iter().map(|account| account.id).collect();
    ensure!(
        rules.iter().all(|rule| ours.contains(&rule.subject_id)),
        "there are rules of nobody"
    );
    Ok(())
}

/// One whose Secret lost its marks as the last of many mishaps gets another key, when that may be made.
async fn is_ready(t: &Sandbox, binding: &str) -> Result<()> {
    let object = t.api::<SecretBinding>().get(binding).await?;
    let ready = object.conditions().iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.with_context(|| format!("{binding} says nothing"))?;
    ensure!(
        ready.status == "True" && ready.observed_generation == object.metadata.generation,
        "{binding}: {ready:?}"
    );
    Ok(())
}

/// Names and versions of all that the controller writes.
async fn versions(t: &Sandbox) -> Result<BTreeMap<String, Option<String>>> {
    let mut versions = BTreeMap::new();
    let all = ListParams::default();
    for object in t.api::<SecretBinding>().list_metadata(&all).await? {
        versions.insert(
            format!("SecretBinding {}", object.name_any()),
            object.resource_version(),
        );
    }
    for object in t.api::<Application>().list_metadata(&all).await? {
        versions.insert(format!("Application {}", object.name_any()), object.resource_version());
    }
    let secrets: Api<Secret> = t.api();
    for object in secrets.list_metadata(&all).await? {
        versions.insert(format!("Secret {}", object.name_any()), object.resource_version());
    }
    Ok(versions)
}

#[test]
fn forty_random_edits_and_deletions_end_as_the_specs_say_and_then_nothing_is_written() -> Result<()> {
    on_cluster(async |t| {
        let mut dice = Dice::cast();
        t.application("Delete", &["prod"]).await?;
        for name in SECRETS {
            t.set("prod", name, "value").await?;
        }
        let mut wanted = Wanted::new();
        for binding in BINDINGS {
            wanted.insert(binding, vec!["a"]);
            t.binding(binding, "prod", &["a"]).await?;
        }
        for n in 0..EDITS {
            let what = edit(t, &mut dice, &mut wanted).await?;
            println!("{n}: {what}");
            sleep(PAUSE).await;
        }
        eventually("all to be as the specs say, and said to be", CALM, async || {
            is_as_wanted(t, &wanted).await?;
            for binding in wanted.keys() {
                is_ready(t, binding).await?;
            }
            Ok(())
        })
        .await?;
        eventually("the writing to end", CONVERGE, async || {
            let before = versions(t).await?;
            sleep(Duration::from_secs(5)).await;
            let after = versions(t).await?;
            ensure!(before == after, "before {before:?}, after {after:?}");
            Ok(())
        })
        .await?;
        is_as_wanted(t, &wanted).await
    })
}
