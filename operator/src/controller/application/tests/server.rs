//! The management plane of a server, in memory, that can die behind any of its changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sealpod_core::wire::headers::API_KEY;
use sealpod_core::wire::problem;
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

const SOME_DAY: &str = "2026-01-01T00:00:00Z";

#[derive(Default)]
pub struct State {
    pub applications: BTreeMap<String, Value>,
    /// By application and slug.
    pub environments: BTreeMap<(String, String), Value>,
    /// By application, environment and key.
    pub configurations: BTreeMap<(String, String, String), Value>,
    /// Keys that work, with the overlap that they got when a later one was made.
    pub keys: Vec<(String, Option<u64>)>,
    /// `METHOD path` of every change, in order.
    pub changes: Vec<String>,
    /// After so many more changes each answer is 503, though the change is made.
    pub dies_after: Option<usize>,
    made: usize,
}

/// Clones share their state.
#[derive(Clone, Default)]
pub struct FakeServer(Arc<Mutex<State>>);

impl FakeServer {
    pub async fn mount(&self, server: &MockServer) {
        Mock::given(any()).respond_with(self.clone()).mount(server).await;
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Respond for FakeServer {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.state();
        let path = request.url.path().to_owned();
        let segments: Vec<_> = path.trim_start_matches("/api/").split('/').collect();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let method = request.method.as_str();
        let key = request.headers.get(API_KEY).map(|key| key.to_str().unwrap());
        if method == "GET" {
            return state.read(&segments, key.unwrap_or_default());
        }
        if state.dies_after == Some(0) {
            return ResponseTemplate::new(503);
        }
        let answer = state.change(method, &segments, &body);
        state.changes.push(format!(
            "{method} {}",
            path.trim_start_matches("/api/management/applications")
        ));
        if let Some(left) = &mut state.dies_after {
            *left -= 1;
            if *left == 0 {
                return ResponseTemplate::new(503);
            }
        }
        answer
    }
}

fn refused(status: u16, code: &str) -> ResponseTemplate {
    let body = json!({"status": status, "code": code});
    ResponseTemplate::new(status).set_body_raw(body.to_string(), problem::CONTENT_TYPE)
}

fn found(object: Option<&Value>) -> ResponseTemplate {
    match object {
        Some(object) => ResponseTemplate::new(200)
            .set_body_json(object)
            .insert_header("etag", "\"1\""),
        None => refused(404, "not_found"),
    }
}

/// Writes the fields of a body over those of an object.
fn write(object: &mut Value, body: &Value) -> ResponseTemplate {
    for (field, value) in body.as_object().unwrap() {
        object[field] = value.clone();
    }
    ResponseTemplate::new(200).set_body_json(&object)
}

impl State {
    fn read(&self, segments: &[&str], key: &str) -> ResponseTemplate {
        let list = |items: Vec<&Value>| ResponseTemplate::new(200).set_body_json(items);
        match *segments {
            ["management", "applications", slug] => found(self.applications.get(slug)),
            ["management", "applications", slug, "environments"] => list(
                self.environments
                    .iter()
                    .filter(|((a, _), _)| a == slug)
                    .map(|(_, e)| e)
                    .collect(),
            ),
            ["management", "applications", slug, "configurations"] => list(
                self.configurations
                    .iter()
                    .filter(|((a, ..), _)| a == slug)
                    .map(|(_, c)| c)
                    .collect(),
            ),
            ["consumer", "configurations", _] if self.works(key) => refused(404, "not_found"),
            ["consumer", ..] => refused(401, "unauthorized"),
            _ => panic!("{segments:?}"),
        }
    }

    fn change(&mut self, method: &str, segments: &[&str], body: &Value) -> ResponseTemplate {
        self.made += 1;
        let id = format!("00000000-0000-0000-0000-{:012}", self.made);
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let mut made = body.clone();
        made["id"] = json!(id);
        made["createdAt"] = json!(SOME_DAY);
        made["updatedAt"] = json!(SOME_DAY);
        match (method, &segments[2..]) {
            ("POST", []) => self.create(made, &text("slug")),
            ("PUT", [slug]) => write(self.applications.get_mut(*slug).unwrap(), body),
            ("DELETE", [slug]) => {
                self.applications.remove(*slug);
                self.keys.clear();
                ResponseTemplate::new(204)
            }
            ("POST", [_, "rotate-key"]) => {
                let overlap = body["overlapSeconds"].as_u64().unwrap();
                ResponseTemplate::new(200).set_body_json(json!({"plainApiKey": self.rotate(overlap)}))
            }
            ("POST", [slug, "environments"]) => {
                self.environments
                    .insert(((*slug).to_owned(), text("slug")), made.clone());
                ResponseTemplate::new(201).set_body_json(made)
            }
            ("PUT", [slug, "environments", environment]) => {
                let at = ((*slug).to_owned(), (*environment).to_owned());
                write(self.environments.get_mut(&at).unwrap(), body)
            }
            ("DELETE", [slug, "environments", environment]) => {
                self.environments
                    .remove(&((*slug).to_owned(), (*environment).to_owned()));
                ResponseTemplate::new(204)
            }
            ("POST", [slug, "configurations"]) => {
                let at = ((*slug).to_owned(), text("environmentSlug"), text("key"));
                if self.configurations.contains_key(&at) {
                    return refused(409, "conflict");
                }
                self.configurations.insert(at, made.clone());
                ResponseTemplate::new(201).set_body_json(made)
            }
            ("PUT", [slug, "configurations", environment, key]) => {
                let at = ((*slug).to_owned(), (*environment).to_owned(), (*key).to_owned());
                write(self.configurations.get_mut(&at).unwrap(), body)
            }
            ("DELETE", [slug, "configurations", environment, key]) => {
                let at = ((*slug).to_owned(), (*environment).to_owned(), (*key).to_owned());
                self.configurations.remove(&at);
                ResponseTemplate::new(204)
            }
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, mut made: Value, slug: &str) -> ResponseTemplate {
        if self.applications.contains_key(slug) {
            return refused(409, "conflict");
        }
        self.applications.insert(slug.to_owned(), made.clone());
        let local = json!({"id": made["id"], "slug": "local", "name": "Local", "labels": {}, "createdAt": SOME_DAY});
        self.environments.insert((slug.to_owned(), "local".to_owned()), local);
        made["plainApiKey"] = json!(self.rotate(0));
        ResponseTemplate::new(201).set_body_json(made)
    }

    fn rotate(&mut self, overlap: u64) -> String {
        self.keys.retain(|_| overlap > 0);
        for (_, left) in &mut self.keys {
            *left = Some(left.unwrap_or(overlap).min(overlap));
        }
        let key = format!("grm_{}", self.made);
        self.keys.push((key.clone(), None));
        key
    }

    pub fn works(&self, key: &str) -> bool {
        self.keys.iter().any(|(live, _)| live == key)
    }
}
