//! What applications and pods ask for all day, and the longest list there is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use sealpod_client::{Client, Credential, Management, Org};
use sealpod_core::wire::management as m;
use sealpod_core::wire::org as o;
use sealpod_core::wire::quotas::SetQuotas;
use sealpod_core::{Encoding, SecretText};

use super::super::server::Server;
use super::cases::{Bar, Case, Percent};
use super::seed::Seed;
use crate::progress::Step;

pub const NAMES: [&str; 4] = [
    "read/consumer",
    "read/organization",
    "applications/a page of 100",
    "applications/a page of 100, with a label",
];
const APPLICATIONS: usize = 10_000;
const ORGANIZATION: &str = "default";
const SECRET: &str = "database-password";
/// Changes on their way at a time.
const AT_ONCE: usize = 64;
const CALLERS: usize = 16;
/// A read of a value, whose audit entry is on disk before the answer.
const READ: Bar = Bar {
    percent: Percent::P50,
    most: Duration::from_millis(1),
};
const PAGE: Bar = Bar {
    percent: Percent::P99,
    most: Duration::from_millis(50),
};

fn slug(n: usize) -> String {
    format!("app-{:05}", n % APPLICATIONS)
}

/// Makes the applications that are not there yet, and asks for them.
pub async fn all(server: &Server, admin_key: &str, seed: &Seed, step: &Step) -> Result<Vec<Case>> {
    let client = Client::builder(server.url())
        .credential(Credential::Admin(SecretText::new(admin_key)))
        .build()?;
    let (plane, org) = (client.management(), client.org(ORGANIZATION));
    applications(plane, org, step).await?;
    let consumer = plane.rotate_application_key(&slug(0), 0).await?.plain_api_key;
    let account = account(org).await?;

    let case = |name: usize, bar, path: Arc<dyn Fn(usize) -> String + Send + Sync>| Case {
        name: NAMES[name].to_owned(),
        path,
        token: None,
        callers: CALLERS,
        bar: Some(bar),
        ..Case::get(seed, "", |_| String::new())
    };
    let secret = format!("/api/consumer/secrets/{SECRET}?environment=local");
    let same = format!(
        "/api/orgs/{ORGANIZATION}/projects/{}/envs/local/secrets/{SECRET}",
        slug(0)
    );
    let page = |more: &'static str| {
        Arc::new(move |n| {
            let after = slug(n * 97);
            format!("/api/management/applications?limit=100&after={after}{more}")
        })
    };
    let admin = Some(admin_key.to_owned());
    Ok(vec![
        Case {
            key: Some(consumer.expose().to_owned()),
            ..case(0, READ, Arc::new(move |_| secret.clone()))
        },
        Case {
            key: Some(account.expose().to_owned()),
            ..case(1, READ, Arc::new(move |_| same.clone()))
        },
        Case {
            token: admin.clone(),
            ..case(2, PAGE, page(""))
        },
        Case {
            token: admin,
            ..case(3, PAGE, page("&label=tier=even"))
        },
    ])
}

async fn applications(plane: Management<'_>, org: Org<'_>, step: &Step) -> Result<()> {
    if plane.application(&slug(APPLICATIONS - 1)).await.is_ok() {
        return Ok(());
    }
    step.follow(&format!("{APPLICATIONS} of them"));
    let quotas = SetQuotas {
        projects: Some(2 * APPLICATIONS as u64),
        ..SetQuotas::default()
    };
    org.set_quotas(&quotas).await?;
    // The last one is made last: it says that all of them are there.
    let made = stream::iter(0..APPLICATIONS).map(async |n| {
        let body = m::CreateApplication {
            name: slug(n),
            description: Some("one of many".to_owned()),
            slug: None,
            labels: [("tier".to_owned(), if n % 2 == 0 { "even" } else { "odd" }.to_owned())].into(),
        };
        match plane.create_application(&body).await {
            Ok(_) | Err(sealpod_client::Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    });
    made.buffered(AT_ONCE).try_collect::<()>().await?;
    let value = o::PutSecret {
        value: SecretText::new("correct horse battery staple"),
        description: None,
        encoding: Encoding::Utf8,
        expires_at: None,
        not_before: None,
    };
    org.put_secret(&slug(0), "local", SECRET, &value).await?;
    Ok(())
}

/// A key of a service account that may read what the first application has.
async fn account(org: Org<'_>) -> Result<SecretText> {
    const NAME: &str = "bench";
    if let Some(known) = org.service_accounts(Some(NAME)).await?.first() {
        return Ok(org.rotate_service_account(known.id, 0).await?.api_key);
    }
    let body = o::CreateServiceAccount {
        name: NAME.to_owned(),
        project: None,
        expires_at: None,
        labels: std::collections::BTreeMap::new(),
    };
    let made = org.create_service_account(&body).await?;
    let rule = o::CreateAclRule {
        subject_type: o::SubjectType::ServiceAccount,
        subject_id: Some(made.id),
        email: None,
        project_pattern: slug(0).parse()?,
        env_pattern: "*".parse()?,
        key_pattern: "*".parse()?,
        configurations: false,
        permission: o::Permission::Read,
    };
    org.grant(&rule).await?;
    Ok(made.api_key)
}
