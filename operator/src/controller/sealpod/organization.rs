//! The organization plane: accounts with their keys and rules, and what those may read.

use std::collections::BTreeMap;

use sealpod_core::{Pattern, Time};
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::Request;

use super::{Answer, State, TIME, gone, query, refused};

#[derive(Clone)]
pub struct Account {
    pub body: Value,
    /// The newest last.
    pub keys: Vec<String>,
}

impl State {
    pub(super) fn in_organization(&mut self, parts: &[&str], request: &Request, body: Value) -> Answer {
        let query = query(request);
        match (request.method.as_str(), parts) {
            ("GET", ["service-accounts"]) => {
                let named = |account: &&Account| query.get("name").is_none_or(|name| account.body["name"] == **name);
                let bodies: Vec<_> = self.accounts.values().filter(named).map(|a| a.body.clone()).collect();
                (200, json!(bodies))
            }
            ("POST", ["service-accounts"]) => self.make(&body),
            ("POST", ["service-accounts", id, "rotate"]) => self.rotate(id.parse().unwrap()),
            ("DELETE", ["service-accounts", id]) => {
                let id: Uuid = id.parse().unwrap();
                self.rules.retain(|_, rule| rule["subject_id"] != json!(id));
                gone(self.accounts.remove(&id))
            }
            ("GET", ["acl"]) => {
                let of = |rule: &&Value| query.get("subject_id").is_none_or(|id| rule["subject_id"] == **id);
                (200, json!(self.rules.values().filter(of).collect::<Vec<_>>()))
            }
            ("POST", ["acl"]) => self.grant(body),
            ("DELETE", ["acl", id]) => gone(self.rules.remove(&id.parse().unwrap())),
            ("GET", [.., "consumers"]) => (200, json!([])),
            ("GET", [.., "bundle"]) => self.bundle(request),
            ("GET", [.., "secrets", name, "versions"]) => self.versions(name),
            _ => refused(404, "not_found"),
        }
    }

    /// A key like those of the server: what its list shows of it is its own.
    fn new_key(&mut self) -> String {
        self.made += 1;
        format!("cr_sa_{:06x}{:034x}", self.made, self.made)
    }

    fn make(&mut self, body: &Value) -> Answer {
        if self
            .accounts
            .values()
            .any(|account| account.body["name"] == body["name"])
        {
            return refused(409, "already_exists");
        }
        let key = self.new_key();
        let id = self.new_id();
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

    fn rotate(&mut self, id: Uuid) -> Answer {
        let key = self.new_key();
        let Some(account) = self.accounts.get_mut(&id) else {
            return refused(404, "not_found");
        };
        account.keys.push(key.clone());
        account.body["key_prefix"] = json!(key[..12]);
        (
            200,
            json!({"api_key": key, "key_prefix": key[..12], "old_key_expires_at": null}),
        )
    }

    fn grant(&mut self, mut rule: Value) -> Answer {
        const IDENTITY: [&str; 4] = ["subject_id", "project_pattern", "env_pattern", "key_pattern"];
        let same = |other: &Value| IDENTITY.iter().all(|field| other[field] == rule[field]);
        let found = self.rules.iter().find(|(_, other)| same(other)).map(|(id, _)| *id);
        let id = found.unwrap_or_else(|| self.new_id());
        rule["id"] = json!(id);
        rule["created_at"] = json!(TIME);
        rule["updated_at"] = json!(TIME);
        self.rules.insert(id, rule.clone());
        (201, rule)
    }

    fn bundle(&self, request: &Request) -> Answer {
        let key = request.headers.get("x-api-key").map(|key| key.to_str().unwrap());
        let of_key = |account: &&Account| account.keys.iter().any(|k| Some(k.as_str()) == key);
        let Some(account) = self.accounts.values().find(of_key) else {
            return refused(401, "unauthorized");
        };
        let rules = self
            .rules
            .values()
            .filter(|rule| rule["subject_id"] == account.body["id"]);
        let patterns: Vec<Pattern> = rules
            .map(|r| serde_json::from_value(r["key_pattern"].clone()).unwrap())
            .collect();
        let with_values = query(request).get("values").is_none_or(|values| values != "false");
        let may = self
            .secrets
            .iter()
            .filter(|(name, _)| patterns.iter().any(|p| p.matches(name)));
        let secrets: BTreeMap<_, _> = may
            .map(|(name, value)| {
                // As long as it is, so is its version.
                let version = value.len();
                let of_values = json!({"version": version, "value": value});
                (
                    name,
                    if with_values {
                        of_values
                    } else {
                        json!({"version": version})
                    },
                )
            })
            .collect();
        let next_change_at = self.ends.values().min().map(|end| just_after(*end));
        let versions = secrets
            .iter()
            .map(|(name, secret)| format!("{name}{}", secret["version"]));
        let etag = versions.collect::<Vec<_>>().concat();
        let etag = format!("e{etag}{}", next_change_at.map_or(0, Time::microseconds));
        (
            200,
            json!({"etag": etag, "next_change_at": next_change_at, "secrets": secrets, "missing": self.missing}),
        )
    }

    fn versions(&self, name: &str) -> (u16, Value) {
        let Some(value) = self.secrets.get(name) else {
            return refused(404, "not_found");
        };
        let versions = json!([{
                "version": value.len(), "is_enabled": true, "expires_at": self.ends.get(name), "not_before": null,
                "created_at": TIME, "created_by": "a",
        }]);
        (200, versions)
    }
}

/// The first instant behind the last one of a window.
fn just_after(end: Time) -> Time {
    Time::from_microseconds(end.microseconds() + 1).unwrap()
}
