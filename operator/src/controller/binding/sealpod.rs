//! A server of Sealpod for tests, with accounts, keys and rules that last, and with a count of what was done to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sealpod_core::Pattern;
use sealpod_core::kubernetes::OWNER_LABEL;
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::world::Effects;

const TIME: &str = "2026-01-01T00:00:00Z";
pub const APPLICATION_OWNER: &str = "cluster/shop/ns-uid/shop";

/// Clones are the same server.
#[derive(Clone)]
pub struct Sealpod(Arc<Mutex<State>>, Effects);

pub struct State {
    pub accounts: BTreeMap<Uuid, Account>,
    pub rules: BTreeMap<Uuid, Value>,
    /// The owner label of the one application, `shop`.
    pub owner: Option<String>,
    pub application_id: Uuid,
    pub secrets: Vec<&'static str>,
    /// Of everything that is read, where it is not what it should be.
    pub reads_fail: Option<(u16, &'static str)>,
    /// `METHOD path` of each request, and whether the admin key was on it.
    pub calls: Vec<(String, bool)>,
    made: u128,
}

#[derive(Clone)]
pub struct Account {
    pub body: Value,
    /// The newest last.
    pub keys: Vec<String>,
}

impl Sealpod {
    pub async fn start(on: &MockServer, effects: Effects) -> Self {
        let state = State {
            accounts: BTreeMap::new(),
            rules: BTreeMap::new(),
            owner: Some(APPLICATION_OWNER.to_owned()),
            application_id: Uuid::from_u128(77),
            secrets: vec!["password"],
            reads_fail: None,
            calls: vec![],
            made: 0,
        };
        let server = Self(Arc::new(Mutex::new(state)), effects);
        Mock::given(any()).respond_with(server.clone()).mount(on).await;
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Respond for Sealpod {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let (status, body) = self.state().answer(request);
        let media_type = if status < 400 {
            "application/json"
        } else {
            "application/problem+json"
        };
        let mut answer = ResponseTemplate::new(status);
        if status != 204 {
            answer = answer.set_body_raw(body.to_string(), media_type);
        }
        if request.method.as_str() != "GET" && self.1.happened() {
            // Its caller never learns of it.
            answer = answer.set_delay(Duration::from_secs(5));
        }
        answer
    }
}

fn problem(status: u16, code: &str) -> (u16, Value) {
    let body = json!({"type": "about:blank", "title": "", "status": status, "detail": "", "code": code});
    (status, body)
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let method = request.method.as_str();
        let path = request.url.path().replace("/api/orgs/default", "");
        self.calls.push((
            format!("{method} {path}"),
            request.headers.contains_key("authorization"),
        ));
        if let (Some((status, code)), "GET") = (self.reads_fail, method) {
            return problem(status, code);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let query: BTreeMap<_, _> = request.url.query_pairs().into_owned().collect();
        let body = || serde_json::from_slice::<Value>(&request.body).unwrap();
        match (method, &parts[..]) {
            ("GET", ["service-accounts"]) => {
                let named = |account: &&Account| query.get("name").is_none_or(|name| account.body["name"] == **name);
                let bodies: Vec<_> = self.accounts.values().filter(named).map(|a| a.body.clone()).collect();
                (200, json!(bodies))
            }
            ("POST", ["service-accounts"]) => self.make(&body()),
            ("POST", ["service-accounts", id, "rotate"]) => self.rotate(id.parse().unwrap()),
            ("DELETE", ["service-accounts", id]) => {
                let id: Uuid = id.parse().unwrap();
                self.rules.retain(|_, rule| rule["subject_id"] != json!(id));
                self.accounts
                    .remove(&id)
                    .map_or_else(|| problem(404, "not_found"), |_| (204, Value::Null))
            }
            ("GET", ["acl"]) => {
                let of = |rule: &&Value| query.get("subject_id").is_none_or(|id| rule["subject_id"] == **id);
                (200, json!(self.rules.values().filter(of).collect::<Vec<_>>()))
            }
            ("POST", ["acl"]) => self.grant(body()),
            ("DELETE", ["acl", id]) => {
                let rule = self.rules.remove(&id.parse().unwrap());
                rule.map_or_else(|| problem(404, "not_found"), |_| (204, Value::Null))
            }
            ("GET", ["api", "management", "applications", "shop"]) => (200, self.application()),
            ("GET", ["api", "management", "applications", "shop", "environments"]) => {
                let environment = json!({"id": Uuid::nil(), "name": "prod", "slug": "prod", "labels": {}, "createdAt": TIME, "updatedAt": TIME});
                (200, json!([environment]))
            }
            ("GET", [.., "consumers"]) => (200, json!([])),
            ("GET", [.., "bundle"]) => self.bundle(request),
            _ => problem(404, "not_found"),
        }
    }

    fn application(&self) -> Value {
        let labels: BTreeMap<_, _> = self.owner.iter().map(|owner| (OWNER_LABEL, owner)).collect();
        json!({
            "id": self.application_id, "name": "Shop", "slug": "shop", "description": null, "labels": labels,
            "createdAt": TIME, "updatedAt": TIME,
        })
    }

    /// A key like those of the server: what its list shows of it is its own.
    fn new_key(&mut self) -> String {
        self.made += 1;
        format!("cr_sa_{:06x}{:034x}", self.made, self.made)
    }

    fn make(&mut self, body: &Value) -> (u16, Value) {
        if self
            .accounts
            .values()
            .any(|account| account.body["name"] == body["name"])
        {
            return problem(409, "already_exists");
        }
        let key = self.new_key();
        let id = Uuid::from_u128(1_000 + self.made);
        let mut shown = json!({
            "id": id, "name": body["name"], "project": body["project"], "key_prefix": key[..12], "expires_at": null,
            "labels": body["labels"], "created_at": TIME, "last_used_at": null,
        });
        let account = Account {
            body: shown.clone(),
            keys: vec![key.clone()],
        };
        self.accounts.insert(id, account);
        shown["api_key"] = json!(key);
        (201, shown)
    }

    fn rotate(&mut self, id: Uuid) -> (u16, Value) {
        let key = self.new_key();
        let Some(account) = self.accounts.get_mut(&id) else {
            return problem(404, "not_found");
        };
        account.keys.push(key.clone());
        account.body["key_prefix"] = json!(key[..12]);
        (
            200,
            json!({"api_key": key, "key_prefix": key[..12], "old_key_expires_at": null}),
        )
    }

    fn grant(&mut self, mut rule: Value) -> (u16, Value) {
        const IDENTITY: [&str; 4] = ["subject_id", "project_pattern", "env_pattern", "key_pattern"];
        let same = |other: &Value| IDENTITY.iter().all(|field| other[field] == rule[field]);
        let found = self.rules.iter().find(|(_, other)| same(other)).map(|(id, _)| *id);
        self.made += 1;
        let id = found.unwrap_or(Uuid::from_u128(2_000 + self.made));
        rule["id"] = json!(id);
        rule["created_at"] = json!(TIME);
        rule["updated_at"] = json!(TIME);
        self.rules.insert(id, rule.clone());
        (201, rule)
    }

    fn bundle(&self, request: &Request) -> (u16, Value) {
        let key = request.headers.get("x-api-key").map(|key| key.to_str().unwrap());
        let of_key = |account: &&Account| account.keys.iter().any(|k| Some(k.as_str()) == key);
        let Some(account) = self.accounts.values().find(of_key) else {
            return problem(401, "unauthorized");
        };
        let rules = self
            .rules
            .values()
            .filter(|rule| rule["subject_id"] == account.body["id"]);
        let patterns: Vec<Pattern> = rules
            .map(|r| serde_json::from_value(r["key_pattern"].clone()).unwrap())
            .collect();
        let may = |name: &&&str| patterns.iter().any(|pattern| pattern.matches(name));
        let secrets: BTreeMap<_, _> = self
            .secrets
            .iter()
            .filter(may)
            .map(|name| (name, json!({"version": 1})))
            .collect();
        (
            200,
            json!({"etag": format!("e{}", secrets.len()), "next_change_at": null, "secrets": secrets}),
        )
    }
}
