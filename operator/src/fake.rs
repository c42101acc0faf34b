//! An API server for tests, in memory: get, list, create, replace, JSON-Patch, apply and delete, with resource versions as
//! the real one has, and its record of who has written which entry of `data`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::header::DATE;
use axum::http::{Method, Request, Response, StatusCode, Uri};
use jiff::Timestamp;
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
    /// Calls, as `METHOD path`, and how they are refused.
    refused: BTreeMap<String, (u16, &'static str)>,
    /// What its answers say that it is, if anything.
    date: Option<Timestamp>,
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
                let (status, answer) = api.state().answer(&parts.method, &parts.uri, &body);
                let mut response = Response::builder().status(status);
                if let Some(date) = api.state().date {
                    response = response.header(DATE, date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
                }
                let response = response.body(Body::from(answer.to_string().into_bytes()));
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

    /// Refuses a call, `METHOD path`, from now on.
    pub fn refuse(&self, call: &str, code: u16, reason: &'static str) {
        self.state().refused.insert(call.to_owned(), (code, reason));
    }

    /// From now on answers say that it is this late.
    pub fn set_clock(&self, date: Timestamp) {
        self.state().date = Some(date);
    }

    /// Refuses nothing any more.
    pub fn allow(&self) {
        self.state().refused.clear();
    }

    /// Puts text under a key of a Secret, as somebody with an editor does.
    pub fn edit_secret(&self, path: &str, key: &str, text: &str) {
        let mut state = self.state();
        let mut object = state.objects[path].clone();
        object["data"][key] = json!(data_encoding::BASE64.encode(text.as_bytes()));
        state.write(path, object, "kubectl-edit");
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

    /// Paths of all objects whose own path holds this.
    pub fn paths(&self, part: &str) -> Vec<String> {
        let state = self.state();
        state
            .objects
            .keys()
            .filter(|path| path.contains(part))
            .cloned()
            .collect()
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

    /// All calls since the last time, as `METHOD path`.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// Changes that were asked for since the last time, as `METHOD path`.
    pub fn take_writes(&self) -> Vec<String> {
        self.take_calls()
            .into_iter()
            .filter(|call| !call.starts_with("GET "))
            .collect()
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

    /// As [`State::store`], and keeps record of who has changed which entry of `data`.
    fn write(&mut self, path: &str, mut object: Value, manager: &str) -> Value {
        let none = json!({});
        let before = self.objects.get(path).map_or(none, |before| before["data"].clone());
        let data = object["data"].as_object().cloned().unwrap_or_default();
        let mut managers = match object["metadata"]["managedFields"].take() {
            Value::Array(managers) => managers,
            _ => vec![],
        };
        if !managers.iter().any(|m| m["manager"] == manager) {
            managers.push(json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:data": {}}}));
        }
        for entry in &mut managers {
            let is_writer = entry["manager"] == manager;
            let fields = entry["fieldsV1"]["f:data"].as_object_mut().unwrap();
            fields.retain(|field, _| data.contains_key(&field[2..]));
            for (key, value) in &data {
                match (before[key] == *value, is_writer) {
                    (true, _) => {}
                    (false, true) => drop(fields.insert(format!("f:{key}"), json!({}))),
                    (false, false) => drop(fields.remove(&format!("f:{key}"))),
                }
            }
        }
        object["metadata"]["managedFields"] = json!(managers);
        self.store(path, object)
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &[u8]) -> (StatusCode, Value) {
        let path = uri.path();
        let call = format!("{method} {path}");
        let refused = self.refused.get(&call).copied();
        self.calls.push(call);
        if let Some((code, reason)) = refused {
            return failure(StatusCode::from_u16(code).unwrap(), reason);
        }
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let of_data = |object: &Value| object["data"].is_object() && object["kind"] == "Secret";
        let manager = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .find_map(|q| q.strip_prefix("fieldManager="));
        match method.as_str() {
            "GET" => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => self.list(path),
            },
            "POST" => {
                let mut object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                if uri.query().unwrap_or_default().contains("dryRun=All") {
                    return (StatusCode::CREATED, object);
                }
                let made = match manager {
                    Some(manager) if of_data(&object) => {
                        object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                        self.write(&path, object, manager)
                    }
                    _ => self.store(&path, object),
                };
                (StatusCode::CREATED, made)
            }
            "PUT" | "PATCH" => {
                let (path, of_status) = match path.strip_suffix("/status") {
                    Some(path) => (path, true),
                    None => (path, false),
                };
                let Some(mut current) = self.objects.get(path).cloned() else {
                    return failure(StatusCode::NOT_FOUND, "NotFound");
                };
                // One who applies a status owns all of it, so what is left out goes.
                if of_status {
                    current["status"] = Value::Null;
                }
                let changed = if method == Method::PUT {
                    serde_json::from_slice(body).unwrap()
                } else {
                    patched(current.clone(), serde_json::from_slice(body).unwrap())
                };
                if version(&changed) != version(&current) {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                let stored = match manager {
                    Some(manager) if method == Method::PUT && of_data(&changed) => self.write(path, changed, manager),
                    _ => self.store(path, changed),
                };
                (StatusCode::OK, stored)
            }
            "DELETE" => {
                let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
                let Some(current) = self.objects.get(path) else {
                    return failure(StatusCode::NOT_FOUND, "NotFound");
                };
                let wanted = &wanted["preconditions"];
                let differs = |field: &str| !wanted[field].is_null() && wanted[field] != current["metadata"][field];
                if differs("resourceVersion") || differs("uid") {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                (StatusCode::OK, self.objects.remove(path).unwrap())
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// The objects of a collection, which is there for every kind of the API server's own.
    fn list(&self, path: &str) -> (StatusCode, Value) {
        let inside = self.objects.iter().filter(|(other, _)| {
            let parent = other.rsplit_once('/').map(|(parent, _)| parent);
            parent == Some(path)
        });
        let items: Vec<_> = inside.map(|(_, object)| object).collect();
        let known = ["/deployments", "/statefulsets", "/daemonsets"]
            .iter()
            .any(|end| path.ends_with(end));
        if items.is_empty() && !known {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        (StatusCode::OK, json!({"metadata": {}, "items": items}))
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
