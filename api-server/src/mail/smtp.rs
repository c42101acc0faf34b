use std::error::Error as _;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::message::Mailbox;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use sealpod_core::Email;
use sealpod_runtime::files;

use super::url::Security;
use super::{LoginMail, SmtpUrl, message};

/// Time limit of the TCP connection; what comes after has that of the whole try.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next mail, and how many are.
const IDLE: Duration = Duration::from_secs(30);
const MAX_IDLE: usize = 2;

/// Why a mail server cannot be spoken to as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    #[error("the file of `ca`: {0}")]
    Unreadable(#[from] files::Unreadable),
    #[error("the file of `ca` holds no certificate in PEM form")]
    NoCertificate,
    #[error("TLS cannot be set up: {0}")]
    Tls(Error),
}

/// What is wrong with the sender of mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an address such as login@example.com or `Sealpod <login@example.com>`, in ASCII but for the name")]
pub struct SenderError;

/// A mail server, and connections to it.
pub struct Smtp {
    host: String,
    port: u16,
    security: Security,
    tls: TlsParameters,
    credentials: Option<Credentials>,
    /// Whether mails travel in clear text over a network.
    pub(super) exposed: bool,
    from: Mailbox,
    hello: ClientId,
    /// Connections that wait for a mail, since when. One that was in use when its try was cut off is never among
    /// them: nobody knows what it stands at.
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

/// Why a mail was not taken. Holds nothing of the mail, nor of what the server said.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether another try would fail as well.
    pub(super) permanent: bool,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Failure {
    pub(super) fn slow(limit: Duration) -> Self {
        Self {
            permanent: false,
            what: format!("the mail server did not finish within {} s", limit.as_secs_f32()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = if let Some(status) = error.status() {
            format!("the mail server answered {status}")
        } else if error.is_response() {
            "what the mail server answered is not SMTP".to_owned()
        } else {
            // Of this machine, the network or TLS.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        };
        Self {
            permanent: error.is_permanent(),
            what,
        }
    }
}

impl Smtp {
    /// An address with or without a name before it.
    pub fn sender(text: &str) -> Result<Mailbox, SenderError> {
        let sender: Mailbox = text.parse().map_err(|_| SenderError)?;
        let address: &str = sender.email.as_ref();
        let name = sender.name.as_deref().unwrap_or_default();
        if address.parse::<Email>().is_err() || name.chars().any(char::is_control) {
            return Err(SenderError);
        }
        Ok(sender)
    }

    /// Reads the certificates that are to be trusted.
    pub fn new(url: SmtpUrl, from: Mailbox) -> Result<Self, SmtpError> {
        let mut tls = TlsParameters::builder(url.host.clone());
        if let Some(ca) = &url.ca {
            let content = files::read(ca)?;
            let certificates = Certificate::from_pem(&content).map_err(SmtpError::Tls)?;
            if !String::from_utf8_lossy(&content).contains("-----BEGIN CERTIFICATE-----") {
                return Err(SmtpError::NoCertificate);
            }
            tls = tls.add_root_certificate(certificates);
        }
        let credentials = url
            .credentials
            .map(|(user, password)| Credentials::new(user, password.expose().to_owned()));
        Ok(Self {
            host: url.host,
            port: url.port,
            security: url.security,
            tls: tls.build().map_err(SmtpError::Tls)?,
            credentials,
            exposed: url.exposed,
            from,
            hello: ClientId::default(),
            idle: Mutex::default(),
        })
    }

    /// Sends a mail. Safe to drop half way.
    pub(super) async fn send(&self, mail: &LoginMail) -> Result<(), Failure> {
        let Some(message) = message::compose(&self.from, mail) else {
            return Err(Failure {
                permanent: true,
                what: "its address cannot stand in a mail".to_owned(),
            });
        };
        let mut connection = self.connection().await?;
        connection.send(message.envelope(), &message.formatted()).await?;
        self.park(connection);
        Ok(())
    }

    /// One that is open and answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Error> {
        while let Some(mut connection) = self.unpark() {
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        let tls = || self.tls.clone();
        let implicit = (self.security == Security::Implicit).then(tls);
        let address = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &self.hello, implicit, None).await?;
        if self.security == Security::StartTls {
            connection.starttls(tls(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, credentials).await?;
        }
        Ok(connection)
    }

    fn unpark(&self) -> Option<AsyncSmtpConnection> {
        self.forget_old();
        self.with(Vec::pop).map(|(connection, _)| connection)
    }

    fn park(&self, connection: AsyncSmtpConnection) {
        self.with(|idle| {
            if idle.len() < MAX_IDLE {
                idle.push((connection, Instant::now()));
            }
        });
    }

    /// Closes connections that nobody has used for a while.
    pub(super) fn forget_old(&self) {
        self.with(|idle| idle.retain(|(_, since)| since.elapsed() < IDLE));
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<(AsyncSmtpConnection, Instant)>) -> T) -> T {
        f(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}
