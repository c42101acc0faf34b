//! A server on a port of its own with a database of its own, and a client that shows what it answers.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::statements::Statements;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sealpod_api_server::app::{App, Metrics, Parts, router};
use sealpod_api_server::audit::{By, Chain, StoredEntry};
use sealpod_api_server::auth::admin_key::AdminKeys;
use sealpod_api_server::backup::{Backups, Storage};
use sealpod_api_server::bundle::Polls;
use sealpod_api_server::crypto::{Keyring, SessionToken, generate_master_key};
use sealpod_api_server::limits::{Limits, Networks, Rate, Settings};
use sealpod_api_server::login::{Login, Signup};
use sealpod_api_server::maintenance::TrashDays;
use sealpod_api_server::reports::Reports;
use sealpod_api_server::rotation::Rotation;
use sealpod_api_server::store::{NewSession, Options, Store};
use sealpod_core::Time;
use sealpod_runtime::admin::Readiness;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub const ADMIN: &str = "admin-key-one-0123456789abcdef-0123456789";
pub const OTHER_ADMIN: &str = "admin-key-two-0123456789abcdef-0123456789";

/// A port on which nobody listens, and what keeps it from everybody but those who ask for just this one.
pub fn held_port() -> (TcpSocket, u16) {
    let held = TcpSocket::new_v4().unwrap();
    // As servers do: two of these may have the same address while only one listens.
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    (held, port)
}

/// Somebody who may do everything.
pub const SUPERADMIN: &str = "root@example.com";

/// The management plane's applications.
pub const M: &str = "/api/management/applications";
/// The consumer plane.
pub const C: &str = "/api/consumer";
/// The organization plane's default organization.
pub const O: &str = "/api/orgs/default";

pub struct Server {
    pub url: String,
    pub store: Store,
    pub stop: CancellationToken,
    /// What the store runs.
    pub statements: Statements,
    client: reqwest::Client,
    dir: Arc<tempfile::TempDir>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server whose store is opened in another way.
    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::made(change, limits()).await
    }

    /// A server with limits of its own.
    pub async fn limited(limits: Settings) -> Self {
        Self::made(|_| {}, limits).await
    }

    async fn made(change: impl FnOnce(&mut Options), limits: Settings) -> Self {
        let (dir, master) = (Arc::new(tempfile::tempdir().unwrap()), generate_master_key());
        Self::build(dir, master.expose(), change, limits, |_, _| {
            Login::new(Signup::Open, None)
        })
        .await
    }

    /// A server on the database in `dir`, which people sign in to as `login` says.
    pub async fn build(
        dir: Arc<tempfile::TempDir>,
        master_key: &str,
        change: impl FnOnce(&mut Options),
        limits: Settings,
        login: impl FnOnce(&Metrics, &CancellationToken) -> Login,
    ) -> Self {
        logs();
        let keyring = Keyring::parse(master_key).unwrap();
        let master = dir.path().join("master.key");
        write_for_owner(&master, master_key);
        let mut options = Options::new(dir.path().join("sealpod.db"));
        let statements = Statements::default();
        options.trace = Some(statements.trace());
        change(&mut options);
        let store = Store::open(&options, &keyring).unwrap();
        store.ensure_organization("default", By::system("test")).await.unwrap();
        let settings = sealpod_api_server::backup::Settings {
            storage: Some(Storage::Directory(dir.path().join("backups"))),
            recipients: Vec::new(),
        };
        let backups = Backups::new(settings, options.path.clone(), keyring.clone());
        let mut registry = sealpod_runtime::admin::registry("api-server", "test");
        let (stop, metrics) = (CancellationToken::new(), Metrics::register(&mut registry));
        let app = App::new(Parts {
            store: store.clone(),
            keyring,
            rotation: Rotation::new(Some(master)),
            backups,
            admin_keys: Arc::new(AdminKeys::new(format!("{ADMIN}\n{OTHER_ADMIN}\n").as_bytes()).unwrap()),
            superadmins: SUPERADMIN.parse().unwrap(),
            refusals: sealpod_api_server::auth::refusals::Refusals::default(),
            limits: Limits::new(limits),
            reports: Reports::default(),
            polls: Polls::default(),
            login: login(&metrics, &stop),
            default_organization: "default".to_owned(),
            docs: true,
            trash: TrashDays::default(),
            readiness: Readiness::new(),
            metrics,
            shutdown: stop.clone(),
        });
        let listener = sealpod_runtime::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let drain = Duration::from_secs(10);
        let limits = app.limits().listener();
        tokio::spawn(sealpod_runtime::serve::run_within(
            listener,
            None,
            router(app),
            limits,
            stop.clone(),
            drain,
        ));
        Self {
            url,
            store,
            stop,
            statements,
            client: client(),
            dir,
        }
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        Call {
            request: self.client.request(
                Method::from_bytes(method.as_bytes()).unwrap(),
                format!("{}{path}", self.url),
            ),
        }
    }

    /// A call from another address of this machine.
    pub fn call_from(&self, ip: &str, method: &str, path: &str) -> Call {
        let client = reqwest::Client::builder()
            .no_proxy()
            .local_address(Some(ip.parse().unwrap()));
        Call {
            request: client.build().unwrap().request(
                Method::from_bytes(method.as_bytes()).unwrap(),
                format!("{}{path}", self.url),
            ),
        }
    }

    /// A call with the admin key.
    pub fn admin(&self, method: &str, path: &str) -> Call {
        self.call(method, path).bearer(ADMIN)
    }

    /// An application named `name`, with its key.
    pub async fn application(&self, name: &str) -> Application<'_> {
        let made = self.admin("POST", M).json(json!({"name": name})).status(201).await;
        Application {
            server: self,
            slug: made.text_at("slug"),
            key: made.text_at("plainApiKey"),
        }
    }

    /// A service account with rules of this project, environment, key pattern and permission.
    pub async fn account(&self, name: &str, rules: &[[&str; 4]]) -> Account {
        let path = format!("{O}/service-accounts");
        let made = self.admin("POST", &path).json(json!({"name": name})).status(201).await;
        let account = Account {
            id: made.text_at("id"),
            key: made.text_at("api_key"),
        };
        for rule in rules {
            self.grant(&account.id, *rule).await;
        }
        account
    }

    /// Somebody who signed in.
    pub async fn user(&self, email: &str) -> User {
        let token = SessionToken::generate();
        let new = NewSession {
            digest: token.digest(self.store.pepper()),
            expires_at: Time::now().plus_seconds(3_600),
        };
        let session = self
            .store
            .begin_session(email.parse().unwrap(), new, By::system("test"))
            .await
            .unwrap();
        User {
            id: session.user.id.0.to_string(),
            token: token.into_text().expose().to_owned(),
        }
    }

    /// Somebody who signed in and is a member of the organization with this role.
    pub async fn member(&self, organization: &str, email: &str, role: &str) -> User {
        self.admin("POST", &format!("/api/orgs/{organization}/members"))
            .json(json!({"email": email, "role": role}))
            .status(201)
            .await;
        self.user(email).await
    }

    /// Grants a rule and returns its id.
    pub async fn grant(&self, account: &str, [project, env, key, permission]: [&str; 4]) -> String {
        let rule = json!({
            "subject_type": "service_account", "subject_id": account, "project_pattern": project, "env_pattern": env,
            "key_pattern": key, "permission": permission,
        });
        self.admin("POST", &format!("{O}/acl"))
            .json(rule)
            .send()
            .await
            .text_at("id")
    }

    /// Sets a value on the organization plane, with the admin key.
    pub async fn put(&self, project: &str, env: &str, key: &str, value: &str) -> Reply {
        let path = format!("{O}/projects/{project}/envs/{env}/secrets/{key}");
        self.admin("PUT", &path).json(json!({"value": value})).send().await
    }

    /// The newest audit entries of the default organization, newest first.
    pub async fn audit(&self) -> Vec<StoredEntry> {
        let organization = self.store.organization("default").await.unwrap();
        self.store
            .audit_entries(Chain::Organization(organization.id), 100)
            .await
            .unwrap()
    }

    /// The metadata of the newest entry.
    pub async fn metadata(&self) -> Value {
        serde_json::from_str(&self.audit().await[0].metadata).unwrap()
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if !std::thread::panicking() {
            let scans = self.statements.scans(&self.dir.path().join("sealpod.db"));
            assert!(scans.is_empty(), "a request read a whole table:\n{}", scans.join("\n"));
        }
    }
}

fn write_for_owner(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The server's own limits, but for those that tests which fail on purpose would meet.
pub fn limits() -> Settings {
    let mut limits = Settings::new(Networks::default(), 0);
    limits.failures = burst(1_000_000);
    limits.logins = burst(1_000_000);
    limits.strangers_per_source = 10_000;
    limits
}

/// So many at once, and no more while a test runs.
pub fn burst(count: u32) -> Rate {
    Rate {
        interval: Duration::from_hours(1),
        burst: count.try_into().unwrap(),
    }
}

fn client() -> reqwest::Client {
    // The first one of the process stays; they are all the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub token: String,
}

pub struct Account {
    pub id: String,
    pub key: String,
}

pub struct Application<'s> {
    server: &'s Server,
    pub slug: String,
    pub key: String,
}

impl<'s> Application<'s> {
    /// One that is there, with another key.
    pub fn new(server: &'s Server, slug: &str, key: &str) -> Self {
        Self {
            server,
            slug: slug.to_owned(),
            key: key.to_owned(),
        }
    }

    /// A call of the management plane below this application.
    pub fn admin(&self, method: &str, path: &str) -> Call {
        self.server.admin(method, &format!("{M}/{}{path}", self.slug))
    }

    /// A read of the consumer plane with this application's key.
    pub fn consumer(&self, path: &str) -> Call {
        self.server.call("GET", &format!("{C}{path}")).key(&self.key)
    }

    /// Makes a secret.
    pub async fn secret(&self, name: &str) -> Reply {
        self.admin("POST", "/secrets")
            .json(json!({"name": name}))
            .status(201)
            .await
    }

    /// Sets one value, with other fields beside it.
    pub async fn set(&self, name: &str, environment: &str, value: &str, more: Value) -> Reply {
        let mut item = json!({"environmentSlug": environment, "value": value});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.admin("POST", &format!("/secrets/{name}/values"))
            .json(json!([item]))
            .status(200)
            .await
    }
}

pub struct Call {
    request: reqwest::RequestBuilder,
}

impl Call {
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value): (HeaderName, HeaderValue) = (name.parse().unwrap(), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        self.request = self.request.headers(headers);
        self
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers write the body in place")]
    pub fn json(self, body: Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header("content-type", content_type).body(body);
        self
    }

    pub async fn send(self) -> Reply {
        let response = self.request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply {
            status,
            headers,
            text,
            body,
        }
    }

    /// Sends it and insists on a status.
    pub async fn status(self, want: u16) -> Reply {
        let reply = self.send().await;
        assert_eq!(reply.status, want, "{}", reply.text);
        reply
    }

    /// Sends it and insists on a problem of this status and code.
    pub async fn problem(self, status: u16, code: &str) -> Reply {
        let reply = self.status(status).await;
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        assert_eq!(reply.body["code"], code, "{}", reply.text);
        assert_eq!(reply.body["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(
                reply.body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {}",
                reply.text
            );
        }
        reply
    }

    /// Sends it and insists on 400 that names this field.
    pub async fn invalid(self, field: &str) -> Reply {
        let reply = self.problem(400, "validation_failed").await;
        assert!(reply.body["errors"][field].is_array(), "{field}: {}", reply.text);
        reply
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null where the body is no JSON.
    pub body: Value,
}

impl Reply {
    pub fn text_at(&self, field: &str) -> String {
        self.body[field]
            .as_str()
            .unwrap_or_else(|| panic!("no text `{field}` in {}", self.text))
            .to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header `{name}`"))
            .to_str()
            .unwrap()
    }

    pub fn list(&self) -> &Vec<Value> {
        self.body.as_array().unwrap_or_else(|| panic!("no list: {}", self.text))
    }
}

/// RFC 3339 of a moment so many milliseconds from now.
pub fn time(milliseconds: i64) -> String {
    let now = sealpod_core::Time::now().microseconds();
    sealpod_core::Time::from_microseconds(now + milliseconds * 1_000)
        .unwrap()
        .to_string()
}

/// Everything that all servers of this process have logged so far, as verbosely as the program lets anybody ask.
pub fn logs() -> String {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Log::default();
        let filter = Targets::new().with_default(LevelFilter::TRACE);
        let quiet = ["hyper", "hyper_util", "h2", "reqwest", "rustls", "tower"].map(|name| (name, LevelFilter::INFO));
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        tracing_subscriber::registry()
            .with(layer.with_filter(filter.with_targets(quiet)))
            .init();
        log
    });
    String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
