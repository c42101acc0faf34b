use super::*;
use crate::controller::context::Context;
use crate::controller::metrics::Metrics;
use crate::controller::namespace;
use crate::controller::retries::Retries;
use crate::controller::server::Server;
use crate::fake::FakeApi;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use sealpod_core::injection::API_KEY_FILE;
use serde_json::{Value, json};
use std::io::Write;
use wiremock::matchers::{body_partial_json, method, path, path_regex};
use wiremock::{Mock, MockServer, ResponseTemplate};

const ACCOUNT: &str = "00000000-0000-0000-0000-000000000001";
const SECRET: &str = "/api/v1/namespaces/shop/secrets/db-sealpod-key";

struct World {
    kube: FakeApi,
    server: MockServer,
    context: Context,
    _key_file: tempfile::NamedTempFile,
}

async fn world() -> World {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kube = FakeApi::default();
    let server = MockServer::start().await;
    let mut key_file = tempfile::NamedTempFile::new().unwrap();
    key_file
        .write_all(b"an-admin-key-of-more-than-32-characters\n")
        .unwrap();
    let (facade, _) = Server::new(&server.uri(), "default".to_owned(), key_file.path().to_owned(), None).unwrap();
    let reporter = Reporter {
        controller: "test".to_owned(),
        instance: None,
    };
    let context = Context {
        kube: kube.client(),
        server: facade,
        cluster_id: "cluster".to_owned(),
        recorder: Recorder::new(kube.client(), reporter),
        metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
        retries: Retries::default(),
        environments: reflector::store().0,
        resolutions: super::super::Resolutions::default(),
    };
    World {
        kube,
        server,
        context,
        _key_file: key_file,
    }
}

impl World {
    async fn answers(&self, verb: &str, at: &str, status: u16, body: Value) {
        let answer = ResponseTemplate::new(status).set_body_json(body);
        Mock::given(method(verb))
            .and(path_regex(at))
            .respond_with(answer)
            .mount(&self.server)
            .await;
    }

    /// The server's side of every change that a grant makes.
    async fn accepts_everything(&self) {
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
    async fn asked(&self) -> Vec<String> {
        let requests = self.server.received_requests().await.unwrap();
        let line = |r: &wiremock::Request| format!("{} {}", r.method, r.url.path().replace("/api/orgs/default", ""));
        requests.iter().map(line).collect()
    }

    fn stored_key(&self) -> Option<String> {
        self.kube.secret_text(SECRET, API_KEY_FILE)
    }
}

fn object() -> SecretBinding {
    let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
    let mut object = SecretBinding::new("db", serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.uid = Some("uid".to_owned());
    object
}

fn observed(secret: secret::Observed) -> Observed {
    Observed {
        namespace: namespace::Observed {
            name: "shop".to_owned(),
            uid: "ns-uid".to_owned(),
            terminating: false,
        },
        application_owner: String::new(),
        account_name: "k8s/cluster/shop/db".to_owned(),
        account_owner: String::new(),
        has_application: true,
        application: None,
        environments: vec![],
        account: None,
        rules: vec![],
        secret,
    }
}

fn plan(account: Account, key: Key) -> Plan {
    let selection = super::super::selection::Selection(None);
    Plan {
        project: "shop".to_owned(),
        grant: selection.rules(),
        selection,
        account,
        revoke: vec![Uuid::from_u128(7)],
        key,
        overlap: 3_600,
        binding: "{}".to_owned(),
    }
}

fn create() -> Account {
    Account::Create(CreateServiceAccount {
        name: "k8s/cluster/shop/db".to_owned(),
        project: Some("shop".to_owned()),
        expires_at: None,
        labels: sealpod_core::wire::Labels::new(),
    })
}

fn account_id() -> Uuid {
    ACCOUNT.parse().unwrap()
}

#[tokio::test]
async fn new_rights_come_before_old_ones_go_and_the_key_comes_last() {
    let world = world().await;
    world.accepts_everything().await;
    let plan = plan(create(), Key::Keep);
    let granted = grant(&object(), &plan, &observed(secret::Observed::Absent), &world.context)
        .await
        .unwrap();
    assert_eq!((granted.account, granted.key.expose()), (account_id(), "cr_sa_first"));
    let unwanted = format!("DELETE /acl/{}", Uuid::from_u128(7));
    assert_eq!(
        world.asked().await,
        ["POST /service-accounts", "POST /acl", unwanted.as_str()]
    );
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_first"));
}

#[tokio::test]
async fn a_key_that_could_not_be_stored_is_not_made_again() {
    let world = world().await;
    world.accepts_everything().await;
    // Somebody else's Secret appears between the look and the write.
    world
        .kube
        .put(SECRET, json!({"metadata": {"name": "db-sealpod-key"}, "data": {}}));
    let nothing = observed(secret::Observed::Absent);
    let first = grant(&object(), &plan(create(), Key::Keep), &nothing, &world.context).await;
    assert!(matches!(first, Err(Error::Kubernetes { .. })), "overwritten");
    assert_eq!(world.stored_key(), None);
    world.kube.remove(SECRET);
    let again = plan(Account::Keep(account_id()), Key::Mint("there is no Secret"));
    grant(&object(), &again, &nothing, &world.context).await.unwrap();
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_first"));
    assert!(!world.asked().await.iter().any(|call| call.ends_with("/rotate")));
}

#[tokio::test]
async fn a_new_key_leaves_the_one_in_use_alive_for_the_overlap() {
    let world = world().await;
    let rotated = json!({"api_key": "cr_sa_second", "key_prefix": "cr_sa_second", "old_key_expires_at": null});
    Mock::given(method("POST"))
        .and(path(format!("/api/orgs/default/service-accounts/{ACCOUNT}/rotate")))
        .and(body_partial_json(json!({"overlap_seconds": 3_600})))
        .respond_with(ResponseTemplate::new(200).set_body_json(rotated))
        .expect(1)
        .mount(&world.server)
        .await;
    world.accepts_everything().await;
    let plan = plan(Account::Keep(account_id()), Key::Mint("its rotation is due"));
    grant(&object(), &plan, &observed(secret::Observed::Absent), &world.context)
        .await
        .unwrap();
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_second"));
}

#[tokio::test]
async fn nothing_is_written_for_a_secret_that_is_as_it_should_be() {
    let world = world().await;
    let contents = secret::Contents {
        uid: Some("s".to_owned()),
        key: Some(SecretText::new("cr_sa_first")),
        ca: None,
        binding: Some("{}".to_owned()),
        rotated_at: Some(Time::from_microseconds(0).unwrap()),
        labelled: true,
    };
    let mut plan = plan(Account::Keep(account_id()), Key::Keep);
    plan.grant.clear();
    plan.revoke.clear();
    let granted = grant(
        &object(),
        &plan,
        &observed(secret::Observed::Ours(contents)),
        &world.context,
    )
    .await
    .unwrap();
    assert_eq!(granted.key.expose(), "cr_sa_first");
    assert!(world.asked().await.is_empty());
    assert!(world.kube.take_writes().is_empty());
}
