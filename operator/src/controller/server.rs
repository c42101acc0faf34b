//! The api-server as the controller sees it: one admin credential and one CA, both from files that may be replaced
//! while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use kube::{Resource, ResourceExt};
use sealpod_client::{BuildError, Client, Credential};
use sealpod_core::SecretText;
use sealpod_runtime::files::{Content, FileSet, POLL_INTERVAL};
use tokio::sync::Notify;

/// Shorter than the time after which a lost lease is another replica's, so that no call outlives the lease.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Clones share the credential.
#[derive(Debug, Clone)]
pub struct Server {
    url: String,
    organization: String,
    current: Arc<ArcSwap<Connection>>,
    /// Rings when there is another admin key or CA.
    replaced: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    admin: Client,
    ca: Option<String>,
}

/// Watches the files; held by whoever made the [`Server`].
#[derive(Debug)]
pub struct Follower {
    files: FileSet,
    server: Server,
}

impl Server {
    pub fn new(
        url: &str,
        organization: String,
        admin_key_file: PathBuf,
        ca_file: Option<PathBuf>,
    ) -> anyhow::Result<(Self, Follower)> {
        let mut files = FileSet::new([admin_key_file].into_iter().chain(ca_file));
        let connection = connect(url, files.read())?;
        let server = Self {
            url: url.trim_end_matches('/').to_owned(),
            organization,
            current: Arc::new(ArcSwap::from_pointee(connection)),
            replaced: Arc::default(),
        };
        let follower = Follower {
            files,
            server: server.clone(),
        };
        Ok((server, follower))
    }

    /// A client with the admin key, calling for this object.
    pub fn admin_for<K: Resource<DynamicType = ()>>(&self, object: &K) -> Client {
        let namespace = object.namespace().unwrap_or_default();
        let connection = self.current.load();
        connection
            .admin
            .on_behalf(&K::kind(&()), &namespace, &object.name_any())
    }

    /// A client with the admin key, calling for the operator itself.
    pub fn admin(&self) -> Client {
        self.current.load().admin.clone()
    }

    /// A client with a binding's own key, which is how anything about values is read. It shares the connections of the
    /// admin's: a handshake for each look at each binding would be most of the work.
    pub fn with_key(&self, key: SecretText) -> Result<Client, BuildError> {
        let connection = self.current.load();
        connection.admin.with_credential(&Credential::ServiceAccount(key))
    }

    /// A client with an application's own key.
    pub fn with_application_key(&self, key: SecretText) -> Result<Client, BuildError> {
        let connection = self.current.load();
        build(&self.url, Credential::Application(key), connection.ca.as_deref())
    }

    /// Until there is another admin key or CA; one that was there before nobody waited counts. For one who waits.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }

    fn take_over(&self, connection: Connection) {
        self.current.store(Arc::new(connection));
        self.replaced.notify_one();
    }

    /// PEM of the CA, for the key Secrets.
    pub fn ca(&self) -> Option<String> {
        self.current.load().ca.clone()
    }

    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// Without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Follower {
    /// Takes over each new content of the files; an unusable one is logged and the one before stays.
    pub async fn run(mut self) {
        loop {
            let contents = self.files.changed(POLL_INTERVAL).await;
            match connect(&self.server.url, contents) {
                Ok(connection) => {
                    self.server.take_over(connection);
                    tracing::info!("the admin key or the CA has changed and is in use");
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "the changed admin key or CA is unusable"),
            }
        }
    }
}

fn connect(url: &str, contents: Vec<Content>) -> anyhow::Result<Connection> {
    let mut contents = contents.into_iter();
    let key = contents.next().expect("the first file is the admin key")?;
    let key = std::str::from_utf8(&key).ok().and_then(|text| {
        // Two lines while the key is being replaced; both are valid.
        text.lines().map(str::trim).find(|line| !line.is_empty())
    });
    let key = SecretText::new(key.context("the admin key file holds no key; it should hold one line with it")?);
    let ca = match contents.next() {
        Some(content) => Some(String::from_utf8(content?.to_vec()).context("the CA file holds no PEM text")?),
        None => None,
    };
    let admin = build(url, Credential::Admin(key), ca.as_deref())?;
    Ok(Connection { admin, ca })
}

fn build(url: &str, credential: Credential, ca: Option<&str>) -> Result<Client, BuildError> {
    let mut builder = Client::builder(url)
        .credential(credential)
        .request_deadline(REQUEST_DEADLINE)
        .user_agent(concat!("sealpod-operator/", env!("CARGO_PKG_VERSION")));
    if let Some(ca) = ca {
        builder = builder.ca(ca);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_key_file_is_the_key() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = |text: &str| vec![Ok(zeroize::Zeroizing::new(text.as_bytes().to_vec()))];
        assert!(connect("http://localhost:7100", file("\n key-one\nkey-two\n")).is_ok());
        let error = connect("http://localhost:7100", file(" \n")).unwrap_err();
        assert!(error.to_string().contains("holds no key"));
        assert!(connect("http://localhost:7100/path", file("key")).is_err());
    }

    #[tokio::test]
    async fn another_key_or_ca_is_told() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut key = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut key, b"key-one\n").unwrap();
        let (server, _) = Server::new("http://localhost:7100", "o".to_owned(), key.path().to_owned(), None).unwrap();
        let moment = Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, server.replaced()).await.is_err());
        let contents = vec![Ok(zeroize::Zeroizing::new(b"key-two".to_vec()))];
        server.take_over(connect("http://localhost:7100", contents).unwrap());
        tokio::time::timeout(moment, server.replaced()).await.unwrap();
    }
}
