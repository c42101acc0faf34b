//! The management plane, and what an application reads with its own key.

use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_core::wire::headers::API_KEY;
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::Request;

use super::{Answer, State, TIME, found, gone, query, refused};

impl State {
    /// An application that has an environment `prod`, and maybe an owner.
    pub fn has_application(&mut self, slug: &str, owner: Option<&str>) {
        let id = self.new_id();
        let application = json!({
            "id": id, "name": slug, "slug": slug, "description": null, "labels": {}, "createdAt": TIME, "updatedAt": TIME,
        });
        self.applications.insert(slug.to_owned(), application);
        self.is_owned_by(slug, owner);
        let prod = json!({"id": id, "name": "prod", "slug": "prod", "labels": {}, "createdAt": TIME});
        self.environments.insert((slug.to_owned(), "prod".to_owned()), prod);
    }

    pub fn is_owned_by(&mut self, slug: &str, owner: Option<&str>) {
        let labels = owner.map_or(json!({}), |owner| json!({OWNER_LABEL: owner}));
        self.applications.get_mut(slug).unwrap()["labels"] = labels;
    }

    /// It went and came back.
    pub fn is_another(&mut self, slug: &str) {
        let id = self.new_id();
        self.applications.get_mut(slug).unwrap()["id"] = json!(id);
    }

    pub fn works(&self, key: &str) -> bool {
        self.application_keys.iter().any(|(live, _)| live == key)
    }

    pub(super) fn read_by_application(&self, request: &Request) -> Answer {
        let key = request.headers.get(API_KEY).map(|key| key.to_str().unwrap());
        if self.works(key.unwrap_or_default()) {
            refused(404, "not_found")
        } else {
            refused(401, "unauthorized")
        }
    }

    pub(super) fn read_application(&self, parts: &[&str], request: &Request) -> Answer {
        match *parts {
            [] => {
                let query = query(request);
                let wanted = query.get("label").and_then(|label| label.split_once('='));
                let labelled = |a: &&Value| wanted.is_none_or(|(label, value)| a["labels"][label] == value);
                (
                    200,
                    json!(self.applications.values().filter(labelled).collect::<Vec<_>>()),
                )
            }
            [slug] => found(self.applications.get(slug)),
            [slug, "environments"] => {
                let of_it = self.environments.iter().filter(|((a, _), _)| a == slug);
                (200, json!(of_it.map(|(_, e)| e).collect::<Vec<_>>()))
            }
            [slug, "configurations"] => {
                let of_it = self.configurations.iter().filter(|((a, ..), _)| a == slug);
                (200, json!(of_it.map(|(_, c)| c).collect::<Vec<_>>()))
            }
            _ => panic!("{parts:?}"),
        }
    }

    pub(super) fn change_application(&mut self, method: &str, parts: &[&str], body: &Value) -> Answer {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let mut made = body.clone();
        made["id"] = json!(self.new_id());
        made["createdAt"] = json!(TIME);
        made["updatedAt"] = json!(TIME);
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        let two = |application: &str, other: &str| (application.to_owned(), other.to_owned());
        let three = |a: &str, e: &str, key: &str| (a.to_owned(), e.to_owned(), key.to_owned());
        match (method, &names[..]) {
            ("POST", []) => self.create(made, &text("slug")),
            ("PUT", [slug]) => changed(self.applications.get_mut(*slug), body),
            ("DELETE", [slug]) => {
                self.application_keys.clear();
                self.environments.retain(|(application, _), _| application != slug);
                self.configurations.retain(|(application, ..), _| application != slug);
                gone(self.applications.remove(*slug))
            }
            ("POST", [_, "rotate-key"]) => {
                let overlap = body["overlapSeconds"].as_u64().unwrap();
                (200, json!({"plainApiKey": self.rotate_application_key(overlap)}))
            }
            ("POST", [slug, "environments"]) => add(&mut self.environments, two(slug, &text("slug")), made),
            ("PUT", [slug, "environments", environment]) => {
                changed(self.environments.get_mut(&two(slug, environment)), body)
            }
            ("DELETE", [slug, "environments", environment]) => {
                self.configurations
                    .retain(|(application, of, _), _| application != slug || of != environment);
                gone(self.environments.remove(&two(slug, environment)))
            }
            ("POST", [slug, "configurations"]) => add(
                &mut self.configurations,
                three(slug, &text("environmentSlug"), &text("key")),
                made,
            ),
            ("PUT", [slug, "configurations", environment, key]) => {
                changed(self.configurations.get_mut(&three(slug, environment, key)), body)
            }
            ("DELETE", [slug, "configurations", environment, key]) => {
                gone(self.configurations.remove(&three(slug, environment, key)))
            }
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, mut made: Value, slug: &str) -> Answer {
        if self.applications.contains_key(slug) {
            return refused(409, "already_exists");
        }
        self.applications.insert(slug.to_owned(), made.clone());
        let local = json!({"id": Uuid::nil(), "slug": "local", "name": "Local", "labels": {}, "createdAt": TIME});
        self.environments.insert((slug.to_owned(), "local".to_owned()), local);
        made["plainApiKey"] = json!(self.rotate_application_key(0));
        (201, made)
    }

    fn rotate_application_key(&mut self, overlap: u64) -> String {
        self.application_keys.retain(|_| overlap > 0);
        for (_, left) in &mut self.application_keys {
            *left = Some(left.unwrap_or(overlap).min(overlap));
        }
        let key = format!("grm_{}", self.made);
        self.application_keys.push((key.clone(), None));
        key
    }
}

/// Makes what is not there yet.
fn add<K: Ord>(all: &mut std::collections::BTreeMap<K, Value>, at: K, made: Value) -> Answer {
    if all.contains_key(&at) {
        return refused(409, "already_exists");
    }
    all.insert(at, made.clone());
    (201, made)
}

/// Writes the fields of a body over those of an object; what is left out stays.
fn changed(object: Option<&mut Value>, body: &Value) -> Answer {
    let Some(object) = object else {
        return refused(404, "not_found");
    };
    for (field, value) in body.as_object().unwrap() {
        object[field] = value.clone();
    }
    (200, object.clone())
}
