//! The client and how it is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Certificate, Url};
use sealpod_core::SecretText;
use sealpod_core::wire::headers;
use uuid::Uuid;

use crate::path::escape;
use crate::{Consumer, Management, Org, Tag};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// Shorter than the server keeps an idle connection, so that a request never meets one that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(20);
/// A peer that vanished without a word (a dead node, dropped packets) is noticed also within a long poll: after a rest
/// of the one and silence of the other, which is within half a minute and does not keep a fleet busy.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The admin key: the management plane, and a superadmin on the organization plane.
    Admin(SecretText),
    /// A `cr_sa_…` key: the organization plane within its rules.
    ServiceAccount(SecretText),
    /// A `cr_session_…` token: the organization plane as somebody who signed in.
    Session(SecretText),
    /// A `grm_…` key: the consumer plane as one application.
    Application(SecretText),
}

/// Why a client could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error(
        "the server's URL must be http:// or https:// with a host and no path, for example https://sealpod.example:7100"
    )]
    Url,
    #[error("the credential is empty or holds characters that no header can carry")]
    Credential,
    #[error("the CA holds no PEM certificate, or one that cannot be read")]
    Ca,
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Everything a [`Client`] is made of.
#[derive(Debug, Clone)]
pub struct Builder {
    url: String,
    credential: Option<Credential>,
    ca: Option<Vec<u8>>,
    user_agent: String,
    request_deadline: Duration,
    max_answer_bytes: usize,
}

impl Builder {
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// PEM certificates, the only ones that are trusted. Without this, the system's are.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Name and version of the program, for the server's audit entries.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Of one call with all that it is tried again, from the first byte sent to the last received. A bundle's deadline
    /// is its `wait` and 10 s instead.
    #[must_use]
    pub fn request_deadline(mut self, deadline: Duration) -> Self {
        self.request_deadline = deadline;
        self
    }

    /// Largest answer that is read, in bytes.
    #[must_use]
    pub fn max_answer_bytes(mut self, limit: usize) -> Self {
        self.max_answer_bytes = limit;
        self
    }

    pub fn build(self) -> Result<Client, BuildError> {
        let base = base_url(&self.url)?;
        let credential = self.credential.as_ref().map(credential_header).transpose()?;
        let mut default = HeaderMap::new();
        if let Ok(agent) = HeaderValue::from_str(&self.user_agent) {
            default.insert(USER_AGENT, agent);
        }
        let mut http = reqwest::Client::builder()
            // `HTTPS_PROXY` is for the way out; the api-server is inside, and its credentials are nobody else's.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_DEADLINE)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_keepalive(PROBE_INTERVAL)
            .tcp_keepalive_interval(PROBE_DEADLINE / 2)
            .tcp_keepalive_retries(2)
            .tcp_user_timeout(PROBE_INTERVAL + PROBE_DEADLINE)
            .http2_keep_alive_interval(PROBE_INTERVAL)
            .http2_keep_alive_timeout(PROBE_DEADLINE)
            .default_headers(default);
        if let Some(pem) = &self.ca {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|_| BuildError::Ca)?;
            if certificates.is_empty() {
                return Err(BuildError::Ca);
            }
            http = http.tls_certs_only(certificates);
        } else if base.starts_with("http://") {
            // Nothing to verify, so the system's certificates are not looked for: an image need not have any.
            http = http.tls_certs_only([]);
        }
        let http = http
            .build()
            .map_err(|error| BuildError::Tls(crate::answer::innermost(&error)))?;
        Ok(Client {
            inner: Arc::new(Inner {
                http,
                base,
                request_deadline: self.request_deadline,
                max_answer_bytes: self.max_answer_bytes,
            }),
            credential,
            on_behalf: None,
            idempotency_key: None,
            if_match: None,
            purges: false,
        })
    }
}

/// A client of one api-server with one credential. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    pub(crate) on_behalf: Option<HeaderValue>,
    pub(crate) idempotency_key: Option<HeaderValue>,
    pub(crate) if_match: Option<Tag>,
    pub(crate) purges: bool,
}

pub(crate) struct Inner {
    pub(crate) http: reqwest::Client,
    /// `https://host:port`, without a slash at the end.
    pub(crate) base: String,
    pub(crate) request_deadline: Duration,
    pub(crate) max_answer_bytes: usize,
}

impl Client {
    /// `url` is `http://` or `https://`, host and port.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            credential: None,
            ca: None,
            user_agent: concat!("sealpod-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            request_deadline: REQUEST_DEADLINE,
            max_answer_bytes: MAX_ANSWER_BYTES,
        }
    }

    /// Whether `url` is one that [`Client::builder`] takes.
    pub fn check_url(url: &str) -> Result<(), BuildError> {
        base_url(url).map(drop)
    }

    /// A client with another credential over the same connections, and for nobody else.
    pub fn with_credential(&self, credential: &Credential) -> Result<Self, BuildError> {
        Ok(Self {
            inner: Arc::clone(&self.inner),
            credential: Some(credential_header(credential)?),
            on_behalf: None,
            idempotency_key: None,
            if_match: None,
            purges: false,
        })
    }

    /// The same client, calling for a Kubernetes object, which the server keeps in its audit entries.
    #[must_use]
    pub fn on_behalf(&self, kind: &str, namespace: &str, name: &str) -> Self {
        let text = format!("{}/{}/{}", escape(kind), escape(namespace), escape(name));
        Self {
            on_behalf: Some(HeaderValue::from_str(&text).expect("escaped text is a header value")),
            ..self.clone()
        }
    }

    /// The same client for one POST, which the server does once however often it arrives, and which is therefore tried
    /// again as reads are. Another POST needs another key. Signing in is never such a POST. What makes a key or account is done once, too, but its
    /// answer cannot be given again: a second arrival is a conflict with [`Code::AlreadyCreated`](crate::Code).
    #[must_use]
    pub fn idempotent(&self, key: Uuid) -> Self {
        let key = HeaderValue::from_str(&key.to_string()).expect("a UUID is a header value");
        Self {
            idempotency_key: Some(key),
            ..self.clone()
        }
    }

    /// The same client for one PUT of the management plane, which changes an object only in the state of this tag and
    /// else is a conflict with [`Code::PreconditionFailed`](crate::Code): somebody was faster, and nothing is lost.
    #[must_use]
    pub fn if_match(&self, tag: &Tag) -> Self {
        Self {
            if_match: Some(tag.clone()),
            ..self.clone()
        }
    }

    /// The same client, whose deletions of applications or projects, environments, secrets and configurations are for
    /// good and at once, instead of to the trash. Needs the role `admin`.
    #[must_use]
    pub fn purging(&self) -> Self {
        Self {
            purges: true,
            ..self.clone()
        }
    }

    /// Applications, environments, secrets and configurations; needs the admin key.
    pub fn management(&self) -> Management<'_> {
        Management(self)
    }

    /// What one application reads; needs its key.
    pub fn consumer(&self) -> Consumer<'_> {
        Consumer(self)
    }

    /// One organization: its people, projects, secrets, rules, accounts and log.
    pub fn org<'a>(&'a self, name: &'a str) -> Org<'a> {
        Org { client: self, name }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.inner.base)
            .finish_non_exhaustive()
    }
}

fn base_url(text: &str) -> Result<String, BuildError> {
    let url = Url::parse(text).map_err(|_| BuildError::Url)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if plain {
        Ok(url.as_str().trim_end_matches('/').to_owned())
    } else {
        Err(BuildError::Url)
    }
}

fn credential_header(credential: &Credential) -> Result<(HeaderName, HeaderValue), BuildError> {
    let (name, text) = match credential {
        Credential::Admin(key) | Credential::Session(key) => {
            (AUTHORIZATION, SecretText::new(format!("Bearer {}", usable(key)?)))
        }
        Credential::ServiceAccount(key) | Credential::Application(key) => {
            (HeaderName::from_static(headers::API_KEY), SecretText::new(usable(key)?))
        }
    };
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| BuildError::Credential)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A key as it came out of a file: without the line end.
fn usable(key: &SecretText) -> Result<&str, BuildError> {
    let key = key.expose().trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(BuildError::Credential);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_server_url_is_taken() {
        assert_eq!(base_url("https://host:7100/").unwrap(), "https://host:7100");
        assert_eq!(base_url("http://[::1]:7100").unwrap(), "http://[::1]:7100");
        for bad in [
            "",
            "host",
            "ftp://host",
            "https://",
            "https://u:p@host",
            "https://host/a",
            "https://host?a",
            "file:///x",
        ] {
            assert_eq!(base_url(bad), Err(BuildError::Url), "{bad}");
        }
    }

    #[test]
    fn nothing_shows_the_credential() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for credential in [
            Credential::Admin,
            Credential::ServiceAccount,
            Credential::Session,
            Credential::Application,
        ] {
            let builder = Client::builder("http://host").credential(credential(SecretText::new("canary\n")));
            let shown = format!("{builder:?}");
            let client = builder.build().unwrap();
            assert!(!format!("{shown} {client:?} {:?}", client.inner.http).contains("canary"));
        }
        let bad = Client::builder("http://host").credential(Credential::Admin(SecretText::new("can ary")));
        assert_eq!(bad.build().unwrap_err(), BuildError::Credential);
    }
}
