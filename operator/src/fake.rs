//! An API server for tests, in memory: get, create, replace, JSON-Patch and apply, with resource versions as the real one has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Clones share their objects.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path: `/api/v1/namespaces/n/secrets/s`.
    objects: BTreeMap<String, Value>,
    version: u64,
    calls: Vec<String>,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                // Lets concurrent callers interleave.
                tokio::task::yield_now().await;
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (status, answer) = api.state().answer(&parts.method, parts.uri.path(), &body);
                let response = Response::builder()
                    .status(status)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, tower::BoxError>(response.unwrap())
            }
        });
        Client::new(service, "sealpod")
    }

    pub fn put(&self, path: &str, object: Value) {
        self.state().store(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub fn remove(&self, path: &str) {
        self.state().objects.remove(path);
    }

    /// Text under a key of a Secret.
    pub fn secret_text(&self, path: &str, key: &str) -> Option<String> {
        let object = self.get(path)?;
        let bytes = data_encoding::BASE64
            .decode(object["data"][key].as_str()?.as_bytes())
            .unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Every Event, oldest first.
    pub fn events(&self) -> Vec<Value> {
        let state = self.state();
        let events = state.objects.iter().filter(|(path, _)| path.contains("/events/"));
        let mut events: Vec<_> = events.map(|(_, event)| event.clone()).collect();
        let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().map(str::parse::<u64>);
        events.sort_by_key(|event| version(event).and_then(Result::ok));
        events
    }

    /// Changes that were asked for since the last time, as `METHOD path`.
    pub fn take_writes(&self) -> Vec<String> {
        let calls = std::mem::take(&mut self.state().calls);
        calls.into_iter().filter(|call| !call.starts_with("GET ")).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        self.calls.push(format!("{method} {path}"));
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        match method.as_str() {
            "GET" => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            "POST" => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                (StatusCode::CREATED, self.store(&path, object))
            }
            "PUT" | "PATCH" => {
                let path = path.strip_suffix("/status").unwrap_or(path);
                let Some(current) = self.objects.get(path).cloned() else {
                    return failure(StatusCode::NOT_FOUND, "NotFound");
                };
                let changed = if method == Method::PUT {
                    serde_json::from_slice(body).unwrap()
                } else {
                    patched(current.clone(), serde_json::from_slice(body).unwrap())
                };
                if version(&changed) != version(&current) {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                (StatusCode::OK, self.store(path, changed))
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }
}

/// JSON-Patch by a list; by an object, an apply that owns all it names.
fn patched(mut object: Value, patch: Value) -> Value {
    if patch.is_array() {
        let operations: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut object, &operations).unwrap();
    } else {
        json_patch::merge(&mut object, &patch);
    }
    object
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "as a test wants it", "reason": reason,
        "code": code.as_u16(),
    });
    (code, status)
}
