//! What is asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;

use super::super::client::Request;
use super::seed::Seed;

const CALLERS: usize = 8;

/// One kind of request; `path` and `body` make the n-th one.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub method: &'static str,
    pub path: Arc<dyn Fn(usize) -> String + Send + Sync>,
    pub body: Option<Arc<dyn Fn(usize) -> String + Send + Sync>>,
    pub token: Option<String>,
    /// `X-API-Key`
    pub key: Option<String>,
    /// Connections that ask at a time, beside one alone.
    pub callers: usize,
    /// What its figures must not be above.
    pub bar: Option<Bar>,
    /// `X-Forwarded-For` of the n-th one.
    pub from: Option<fn(usize) -> String>,
    /// Most requests that the server takes of it in a while.
    pub most: Option<usize>,
}

/// The longest time within which so many of a hundred answers may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub percent: Percent,
    pub most: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Percent {
    P50,
    P99,
}

/// What is read from indexes, whatever else the database holds.
const QUICK: Bar = Bar {
    percent: Percent::P99,
    most: Duration::from_millis(20),
};

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Case {
    pub fn get(seed: &Seed, name: &str, path: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        Self {
            name: format!("org/{name}"),
            method: "GET",
            path: Arc::new(path),
            body: None,
            token: Some(seed.facts.token.clone()),
            key: None,
            callers: CALLERS,
            bar: Some(QUICK),
            from: None,
            most: None,
        }
    }

    /// The first `count` of its requests.
    pub fn requests(&self, count: usize) -> Vec<Request> {
        (0..count).map(|n| self.request(n)).collect()
    }

    fn request(&self, n: usize) -> Request {
        let bearer = self
            .token
            .as_ref()
            .map(|token| ("authorization", format!("Bearer {token}")));
        let key = self.key.as_ref().map(|key| ("x-api-key", key.clone()));
        let from = self.from.map(|from| ("x-forwarded-for", from(n)));
        Request {
            method: self.method,
            path: (self.path)(n),
            headers: [bearer, key, from].into_iter().flatten().collect(),
            body: self.body.as_ref().map(|body| body(n)),
        }
    }
}

pub fn all(seed: &Seed) -> Vec<Case> {
    let mut cases = sessions(seed);
    cases.extend(lists(seed));
    cases.extend(audit(seed));
    cases.extend(values(seed));
    cases
}

fn sessions(seed: &Seed) -> Vec<Case> {
    // The limits of logins are for each address and network, and for all of them in a quarter of an hour; so the
    // requests are those of many people in many networks.
    let asked = AtomicUsize::new(0);
    let login = Case {
        method: "POST",
        body: Some(Arc::new(move |_| {
            let member = asked.fetch_add(1, Ordering::Relaxed);
            format!(r#"{{"email":"member-{member}@bench.example.com"}}"#)
        })),
        token: None,
        from: Some(|n| format!("10.{}.{}.1", n / 256, n % 256)),
        most: Some(400),
        ..Case::get(seed, "login", |_| "/api/auth/login".to_owned())
    };
    vec![login, Case::get(seed, "me", |_| "/api/auth/me".to_owned())]
}

fn lists(seed: &Seed) -> Vec<Case> {
    let facts = &seed.facts;
    let organization = format!("/api/orgs/{}", facts.organization);
    let secrets = format!(
        "{organization}/projects/{}/envs/{}/secrets",
        facts.project, facts.environment
    );
    let (members, count) = (format!("{organization}/members"), facts.secrets);
    let first = secrets.clone();
    vec![
        Case::get(seed, "organizations", |_| "/api/orgs".to_owned()),
        Case::get(seed, "secrets, the first 100", move |_| format!("{first}?limit=100")),
        Case::get(seed, "secrets, 100 from the middle", move |n| {
            format!("{secrets}?limit=100&after=key-{:05}", n as u64 * 97 % count)
        }),
        Case::get(seed, "members, 100", move |n| {
            let after = if n % 2 == 0 {
                ""
            } else {
                "&after=member-5@bench.example.com"
            };
            format!("{members}?limit=100{after}")
        }),
    ]
}

/// Every filter alone, and those that are hardest together: an actor and a secret that are each in many entries.
fn audit(seed: &Seed) -> Vec<Case> {
    let facts = &seed.facts;
    let path = format!("/api/orgs/{}/audit-logs", facts.organization);
    let (busy, rare) = (facts.actors[0].clone(), facts.actors[17].clone());
    let (hot, cold) = (facts.resources[1].clone(), facts.resources[23].clone());
    let (since, until) = (facts.since.clone(), facts.until.clone());
    let queries = [
        ("newest 20", String::new()),
        ("newest 100", "limit=100".to_owned()),
        ("a common action", "limit=100&action=secret.read".to_owned()),
        ("a rare action", "limit=100&action=acl.grant".to_owned()),
        ("an action that never was", "action=backup.restore".to_owned()),
        ("a busy actor", format!("limit=100&actor_id={busy}")),
        ("a rare actor", format!("limit=100&actor_id={rare}")),
        ("a kind of resource", "limit=100&resource_type=secret".to_owned()),
        ("a busy secret", format!("limit=100&resource_id={hot}")),
        ("a rare secret", format!("limit=100&resource_id={cold}")),
        (
            "a busy actor's rare action",
            format!("limit=100&actor_id={busy}&action=acl.grant"),
        ),
        (
            "a busy actor and secret",
            format!("limit=100&actor_id={busy}&resource_id={hot}"),
        ),
        (
            "a busy actor and a rare secret",
            format!("limit=100&actor_id={busy}&resource_id={cold}"),
        ),
        (
            "a rare actor and a busy secret",
            format!("limit=100&actor_id={rare}&resource_id={hot}"),
        ),
        (
            "actor, secret and action",
            format!("limit=100&actor_id={busy}&resource_id={hot}&action=secret.set"),
        ),
        ("a time", format!("limit=100&since={since}&until={until}")),
        (
            "everything at once",
            format!(
                "limit=100&since={since}&until={until}&actor_id={busy}&resource_id={hot}&resource_type=secret\
                 &action=secret.read"
            ),
        ),
    ];
    let middle = {
        let (path, rows) = (path.clone(), facts.audit_rows);
        Case::get(seed, "audit, 100 from anywhere", move |n| {
            let seq = n as u64 * 104_729 % rows + 101;
            format!("{path}?limit=100&after={}", BASE64URL_NOPAD.encode(&seq.to_be_bytes()))
        })
    };
    let cases = queries.into_iter().map(|(name, query)| {
        let path = format!("{path}?{query}");
        Case::get(seed, &format!("audit, {name}"), move |_| path.clone())
    });
    std::iter::once(middle).chain(cases).collect()
}

/// Bound by the disk, which must have each entry before the answer: shown beside the rest, not judged.
fn values(seed: &Seed) -> Vec<Case> {
    let facts = &seed.facts;
    let path = format!(
        "/api/orgs/{}/projects/{}/envs/{}/secrets/key-",
        facts.organization, facts.project, facts.environment
    );
    let count = facts.secrets;
    let case = |name, path: String| Case {
        bar: None,
        ..Case::get(seed, name, move |n| format!("{path}{:05}", n as u64 * 7_919 % count))
    };
    let write = Case {
        method: "PUT",
        body: Some(Arc::new(|n| format!(r#"{{"value":"value-{n}"}}"#))),
        ..case("write of a value", path.clone())
    };
    vec![case("read of a value", path), write]
}
