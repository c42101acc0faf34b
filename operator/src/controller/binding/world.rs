//! A Kubernetes API and a server of Sealpod for the tests of this module.

use std::io::Write;
use std::sync::{Arc, Mutex};

use kube::client::Body;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use sealpod_core::injection::API_KEY_FILE;
use sealpod_crds::SecretBinding;
use serde_json::{Value, json};
use tokio::sync::Notify;
use wiremock::matchers::{method, path_regex};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::controller::context::Context;
use crate::controller::events::Recorder;
use crate::controller::metrics::Metrics;
use crate::controller::missed::Missed;
use crate::controller::restart::Restarts;
use crate::controller::retries::Retries;
use crate::controller::scope::Scope;
use crate::controller::server::Server;
use crate::fake::FakeApi;

pub const ACCOUNT: &str = "00000000-0000-0000-0000-000000000001";
pub const SECRET: &str = "/api/v1/namespaces/shop/secrets/db-sealpod-key";

pub struct World {
    pub kube: FakeApi,
    pub server: MockServer,
    pub context: Arc<Context>,
    _key_file: tempfile::NamedTempFile,
}

pub async fn world() -> World {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kube = FakeApi::default();
    let server = MockServer::start().await;
    let mut key_file = tempfile::NamedTempFile::new().unwrap();
    key_file
        .write_all(b"an-admin-key-of-more-than-32-characters\n")
        .unwrap();
    let (facade, _) = Server::new(&server.uri(), "default".to_owned(), key_file.path().to_owned(), None).unwrap();
    World {
        context: Arc::new(context(&kube.client(), facade)),
        kube,
        server,
        _key_file: key_file,
    }
}

fn context(kube: &Client, server: Server) -> Context {
    let reporter = Reporter {
        controller: "test".to_owned(),
        instance: None,
    };
    Context {
        kube: kube.clone(),
        server,
        cluster_id: "cluster".to_owned(),
        recorder: Recorder::new(kube.clone(), reporter),
        metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
        retries: Retries::default(),
        environments: reflector::store().0,
        resolutions: super::Resolutions::default(),
        echoes: Arc::default(),
        bindings: reflector::store().0,
        copies: super::Copies::new(listed(&[]).0),
        restarts: Restarts::default(),
        missed: Arc::new(Missed::default()),
        scope: Scope::default(),
    }
}

/// What a watch has listed.
pub fn listed<K>(objects: &[K]) -> (Store<K>, Writer<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object.clone()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    (store, writer)
}

/// Changes outside of the process, and behind which of them something goes wrong: whoever asked for that one never
/// hears of it.
#[derive(Clone, Default)]
pub struct Effects(Arc<Mutex<Counted>>, Arc<Notify>);

/// How many there were, and at which of them what goes wrong.
type Counted = (usize, Option<(usize, Death)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process ends there.
    Killed,
    /// The change is made and its answer an error; the process goes on.
    Unheard,
}

impl Effects {
    /// Counts from now on.
    pub fn go_on(&self) {
        *self.0.lock().unwrap() = (0, None);
    }

    pub fn die_after(&self, count: usize, death: Death) {
        *self.0.lock().unwrap() = (0, Some((count, death)));
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().0
    }

    /// One more, and what goes wrong behind it.
    pub fn happened(&self) -> Option<Death> {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        let death = state.1.filter(|(at, _)| *at == state.0).map(|(_, death)| death);
        if death == Some(Death::Killed) {
            self.1.notify_one();
        }
        death
    }

    pub async fn killed(&self) {
        self.1.notified().await;
    }
}

impl World {
    /// The operator is started anew, and remembers nothing. Its changes of the cluster count.
    pub fn restart(&mut self, effects: &Effects) {
        let (kube, effects) = (self.kube.client(), effects.clone());
        let counted = tower::service_fn(move |request: axum::http::Request<Body>| {
            let (kube, effects) = (kube.clone(), effects.clone());
            async move {
                let is_change = request.method() != axum::http::Method::GET;
                let answer = kube.send(request).await;
                match is_change.then(|| effects.happened()).flatten() {
                    None => answer,
                    Some(Death::Killed) => std::future::pending().await,
                    Some(Death::Unheard) => Err(kube::Error::Service("the connection is cut".into())),
                }
            }
        });
        let server = self.context.server.clone();
        self.context = Arc::new(context(&Client::new(counted, "default"), server));
    }

    pub async fn answers(&self, verb: &str, at: &str, status: u16, body: Value) {
        let answer = ResponseTemplate::new(status).set_body_json(body);
        Mock::given(method(verb))
            .and(path_regex(at))
            .respond_with(answer)
            .mount(&self.server)
            .await;
    }

    /// The server's side of every change that a grant makes.
    pub async fn accepts_everything(&self) {
        let account = json!({
            "id": ACCOUNT, "name": "k8s/cluster/shop/db", "project": "shop", "api_key": "cr_sa_first",
            "key_prefix": "cr_sa_first", "expires_at": null, "labels": {}, "created_at": "2026-01-01T00:00:00Z",
        });
        self.answers("POST", "/service-accounts$", 201, account).await;
        let rotated = json!({"api_key": "cr_sa_second", "key_prefix": "cr_sa_second", "old_key_expires_at": null});
        self.answers("POST", "/rotate$", 200, rotated).await;
        let rule = json!({
            "id": ACCOUNT, "subject_type": "service_account", "subject_id": ACCOUNT, "project_pattern": "shop",
            "env_pattern": "prod", "key_pattern": "*", "configurations": false, "permission": "read",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        self.answers("POST", "/acl$", 201, rule).await;
        Mock::given(method("DELETE"))
            .respond_with(ResponseTemplate::new(204))
            .mount(&self.server)
            .await;
    }

    /// What was asked of the server, as `METHOD /path`, the part that all share left out.
    pub async fn asked(&self) -> Vec<String> {
        let requests = self.server.received_requests().await.unwrap();
        let line = |r: &wiremock::Request| format!("{} {}", r.method, r.url.path().replace("/api/orgs/default", ""));
        requests.iter().map(line).collect()
    }

    pub fn stored_key(&self) -> Option<String> {
        self.kube.secret_text(SECRET, API_KEY_FILE)
    }
}

pub fn object() -> SecretBinding {
    let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
    let mut object = SecretBinding::new("db", serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.uid = Some("uid".to_owned());
    object
}
