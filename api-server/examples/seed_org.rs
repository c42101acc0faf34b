//! Fills a database for `cargo xtask bench server`: an organization with members, secrets and a long audit log, written
//! by the store's own code, so that its chain is whole. Prints what the bench asks for as one line of JSON.
//!
//! `seed_org DATABASE MASTER_KEY_FILE AUDIT_ROWS SECRETS MEMBERS VALUE_BYTES`
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use sealpod_api_server::audit::{Actor, ActorKind, By, Chain, Entry, Kind, Metadata, Outcome, Source, Verb};
use sealpod_api_server::crypto::{Keyring, SessionToken};
use sealpod_api_server::ids::VersionId;
use sealpod_api_server::store::{
    AuditQuery, Grantor, NewEnvironment, NewProject, NewSession, NewVersion, Options, ProjectRef, Store,
};
use sealpod_core::Time;
use sealpod_core::wire::Labels;
use sealpod_core::wire::people::Role;
use serde_json::json;
use uuid::Uuid;

const ORGANIZATION: &str = "bench";
const PROJECT: &str = "shop";
const ENVIRONMENT: &str = "prod";
/// Changes that wait for the store at a time.
const AT_ONCE: usize = 2_048;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ensure!(
        arguments.len() == 6,
        "seed_org DATABASE MASTER_KEY_FILE AUDIT_ROWS SECRETS MEMBERS VALUE_BYTES"
    );
    let number = |at: usize| arguments[at].parse::<usize>().context("is no number");
    let (rows, secrets, members, bytes) = (number(2)?, number(3)?, number(4)?, number(5)?);
    let keyring = Arc::new(Keyring::parse(&std::fs::read_to_string(&arguments[1])?)?);
    let mut options = Options::new(&arguments[0]);
    options.queue = 2 * AT_ONCE;
    let opened = Arc::clone(&keyring);
    let store = tokio::task::spawn_blocking(move || Store::open(&options, &opened)).await??;
    let by = By::system("bench");
    let organization = store.ensure_organization(ORGANIZATION, by.clone()).await?;
    let chain = Chain::Organization(organization.id);

    let people = seed_members(&store, members).await?;
    let secrets = seed_secrets(&store, &keyring, secrets, bytes).await?;
    let seeded = seed_log(&store, chain, rows, &people, &secrets).await?;
    let token = SessionToken::generate();
    let session = NewSession {
        digest: token.digest(store.pepper()),
        expires_at: Time::now().plus_seconds(30 * 24 * 3_600),
    };
    store.begin_session(email(0).parse()?, session, by).await?;

    let at = async |seq: u64| -> Result<String> {
        let found = store.audit_following(chain, seq - 1, 1).await?;
        Ok(found.first().context("an entry is missing")?.created_at.to_string())
    };
    let middle = (at(seeded / 2).await?, at(seeded / 2 + seeded / 100).await?);
    let token = token.into_text();
    println!(
        "{}",
        json!({
            "organization": ORGANIZATION, "project": PROJECT, "environment": ENVIRONMENT, "token": token.expose(),
            "audit_rows": seeded, "secrets": secrets.len(), "members": people.len(),
            "actors": people.iter().take(100).collect::<Vec<_>>(),
            "resources": secrets.iter().take(100).map(|(id, _)| id).collect::<Vec<_>>(),
            "since": middle.0, "until": middle.1,
        })
    );
    store.close().await;
    Ok(())
}

fn email(n: usize) -> String {
    format!("member-{n}@bench.example.com")
}

/// Ids of the members; the first one is the owner.
async fn seed_members(store: &Store, count: usize) -> Result<Vec<Uuid>> {
    let grantor = (Grantor::Superadmin, By::system("bench"));
    stream::iter(0..count)
        .map(|n| {
            let (store, grantor) = (store.clone(), grantor.clone());
            async move {
                let role = if n == 0 { Role::Owner } else { Role::Developer };
                let member = store.add_member(ORGANIZATION, email(n).parse()?, role, grantor).await?;
                Ok(member.user.0)
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// Ids and names of the secrets; each value has at least so many bytes.
async fn seed_secrets(store: &Store, keyring: &Keyring, count: usize, bytes: usize) -> Result<Vec<(Uuid, String)>> {
    let by = By::system("bench");
    let project = NewProject {
        organization: ORGANIZATION.into(),
        slug: PROJECT.parse()?,
        display_name: PROJECT.to_owned(),
        description: None,
        labels: Labels::new(),
        environments: vec![NewEnvironment {
            slug: ENVIRONMENT.parse()?,
            display_name: ENVIRONMENT.to_owned(),
            labels: Labels::new(),
        }],
        key: None,
    };
    store.create_project(project, by.clone()).await?;
    stream::iter(0..count)
        .map(|n| {
            let (store, by) = (store.clone(), by.clone());
            async move {
                let (name, project) = (format!("key-{n:05}"), ProjectRef::slug(ORGANIZATION, PROJECT));
                let slots = store.locate(project, &name, vec![ENVIRONMENT.to_owned()]).await?;
                let slot = slots.into_iter().next().context("no slot")?;
                let id = VersionId::new();
                let version = NewVersion {
                    sealed: keyring.seal(&slot.aad(id), value(n, bytes).as_bytes()),
                    slot: slot.clone(),
                    id,
                    is_enabled: true,
                    not_before: None,
                    expires_at: None,
                    from: None,
                };
                store.append_versions(vec![version], None, by).await?;
                Ok((slot.secret.0, name))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

fn value(n: usize, bytes: usize) -> String {
    let value = format!("value-{n}");
    let missing = bytes.saturating_sub(value.len());
    value + &"x".repeat(missing)
}

/// Appends until the log has `rows` entries; answers how many it has. Most are reads; one actor has made about every
/// third, and one secret is in about every fifth.
async fn seed_log(
    store: &Store,
    chain: Chain,
    rows: usize,
    people: &[Uuid],
    secrets: &[(Uuid, String)],
) -> Result<u64> {
    let newest = AuditQuery {
        limit: 1,
        ..AuditQuery::default()
    };
    let before = store.audit_page(chain, newest).await?.entries;
    let before = before.first().map_or(0, |entry| entry.seq);
    let missing = (rows as u64).saturating_sub(before);
    let began = Instant::now();
    stream::iter(0..missing)
        .map(Ok::<_, anyhow::Error>)
        .try_for_each_concurrent(AT_ONCE, |n| async move {
            let (entry, by) = event(n, people, secrets);
            store.record(chain, entry, by).await?;
            if n % 100_000 == 0 && n > 0 {
                let rate = u128::from(n) * 1_000 / began.elapsed().as_millis().max(1);
                eprintln!("{n} audit entries, {rate} a second");
            }
            Ok(())
        })
        .await?;
    Ok(before + missing)
}

fn event(n: u64, people: &[Uuid], secrets: &[(Uuid, String)]) -> (Entry, By) {
    let mut random = Random(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let person = if random.below(3) == 0 {
        0
    } else {
        random.below(people.len())
    };
    let secret = if random.below(5) == 0 {
        1
    } else {
        random.below(secrets.len())
    };
    let (kind, verb) = match random.below(100) {
        0..=84 => (Kind::Secret, Verb::Read),
        85..=90 => (Kind::Secret, Verb::List),
        91..=95 => (Kind::Secret, Verb::Set),
        96..=97 => (Kind::Config, Verb::Set),
        98 => (Kind::Acl, Verb::Grant),
        _ => (Kind::Secret, Verb::Update),
    };
    let (id, name) = &secrets[secret];
    let denied = random.below(200) == 0;
    let entry = Entry::new(kind, verb)
        .resource(*id, name)
        .at(PROJECT, Some(ENVIRONMENT))
        .outcome(if denied { Outcome::Denied } else { Outcome::Success })
        .metadata(Metadata {
            version: Some(1),
            ..Metadata::default()
        });
    let by = By {
        actor: Arc::new(Actor {
            kind: ActorKind::User,
            id: Some(people[person]),
            name: email(person),
        }),
        source: Arc::new(Source {
            ip: Some([10, 0, 0, 7].into()),
            user_agent: Some("sealpod-sidecar/0.1.0".to_owned()),
            request_id: Some(format!("0198c5a1-7e2f-7000-8000-{n:012x}")),
        }),
        on_behalf: None,
        once: None,
    };
    (entry, by)
}

/// xorshift64*: the same events in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % end
    }
}
