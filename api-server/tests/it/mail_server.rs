//! A mail server that keeps what it is sent, and behaves as badly as it is told to.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use sealpod_api_server::mail::{Smtp, SmtpUrl, Transport};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub const FROM: &str = "Sealpod <login@sealpod.example>";
pub const USER: &str = "relay@example.com";
pub const PASSWORD: &str = "canary:of/the@relay";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    None,
    StartTls,
    Implicit,
}

/// How it treats mails from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Answers no command.
    Silent,
    /// Answers every recipient with this.
    Refuses(&'static str),
}

#[derive(Debug)]
pub struct Received {
    pub to: String,
    /// Head and body, as they came.
    pub text: String,
    pub encrypted: bool,
    /// User and password, if it was told any.
    pub login: Option<(String, String)>,
}

impl Received {
    /// The code in the plain form.
    pub fn code(&self) -> String {
        let is_code = |line: &&str| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit());
        let mut codes = self.text.lines().map(str::trim).filter(is_code);
        codes
            .next()
            .unwrap_or_else(|| panic!("no code in {}", self.text))
            .to_owned()
    }
}

pub struct MailServer {
    security: Security,
    pub port: u16,
    dir: tempfile::TempDir,
    state: Arc<State>,
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
}

struct State {
    mood: Mutex<Mood>,
    connections: AtomicUsize,
    /// Recipients that were named, whatever became of them.
    asked: AtomicUsize,
    mails: mpsc::UnboundedSender<Received>,
    acceptor: TlsAcceptor,
    security: Security,
}

impl MailServer {
    pub async fn start(security: Security) -> Self {
        Self::on(0, security).await
    }

    pub async fn on(port: u16, security: Security) -> Self {
        let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mails, received) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Good),
            connections: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            mails,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            security,
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Self {
            security,
            port,
            dir,
            state,
            received: tokio::sync::Mutex::new(received),
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn transport(&self) -> Transport {
        transport(&self.url())
    }

    pub fn url(&self) -> String {
        let user = format!("{}:{}@", USER.replace('@', "%40"), "canary%3Aof%2Fthe%40relay");
        let (port, ca) = (self.port, self.ca().display().to_string());
        match self.security {
            Security::None => format!("smtp://localhost:{port}"),
            Security::StartTls => format!("smtp://{user}localhost:{port}?tls=required&ca={ca}"),
            Security::Implicit => format!("smtps://{user}localhost:{port}?ca={ca}"),
        }
    }

    pub fn mood(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// The next mail.
    pub async fn next(&self) -> Received {
        let mut received = self.received.lock().await;
        let next = tokio::time::timeout(Duration::from_secs(20), received.recv());
        next.await.expect("a mail comes in time").unwrap()
    }

    /// Whether no mail is there that nobody has taken.
    pub async fn is_empty(&self) -> bool {
        self.received.lock().await.is_empty()
    }
}

/// The way to a mail server, as an administrator would configure it.
pub fn transport(url: &str) -> Transport {
    let smtp = Smtp::new(SmtpUrl::parse(url).unwrap(), Smtp::sender(FROM).unwrap());
    Transport::Smtp(Box::new(smtp.unwrap()))
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connection(stream, Arc::clone(&state)));
    }
}

/// An error is a client that went away.
async fn connection(stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    match state.security {
        Security::None => {
            Session::new(stream, &state, false).run(true).await?;
        }
        Security::Implicit => {
            let stream = state.acceptor.accept(stream).await?;
            Session::new(stream, &state, true).run(true).await?;
        }
        Security::StartTls => {
            if let Some(stream) = Session::new(stream, &state, false).run(true).await? {
                let stream = state.acceptor.accept(stream).await?;
                Session::new(stream, &state, true).run(false).await?;
            }
        }
    }
    Ok(())
}

struct Session<'s, S> {
    stream: BufReader<S>,
    state: &'s State,
    encrypted: bool,
    login: Option<(String, String)>,
    to: String,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Session<'s, S> {
    fn new(stream: S, state: &'s State, encrypted: bool) -> Self {
        Self {
            stream: BufReader::new(stream),
            state,
            encrypted,
            login: None,
            to: String::new(),
        }
    }

    /// Returns the stream when the client asks for TLS on it.
    async fn run(mut self, greet: bool) -> std::io::Result<Option<S>> {
        if greet {
            self.say("220 localhost ready").await?;
        }
        let offers_tls = self.state.security == Security::StartTls && !self.encrypted;
        let takes_logins = self.encrypted || self.state.security == Security::None;
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            let mood = *self.state.mood.lock().unwrap();
            if mood == Mood::Silent {
                std::future::pending::<()>().await;
            }
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" if offers_tls => self.say("250-localhost\r\n250 STARTTLS").await?,
                "EHLO" => self.say("250-localhost\r\n250-8BITMIME\r\n250 AUTH PLAIN").await?,
                "STARTTLS" if offers_tls => {
                    self.say("220 go ahead").await?;
                    return Ok(Some(self.stream.into_inner()));
                }
                "AUTH" if takes_logins => self.authenticate(&line).await?,
                "MAIL" if offers_tls => self.say("530 must issue a STARTTLS command first").await?,
                "MAIL" | "NOOP" | "RSET" => self.say("250 OK").await?,
                "RCPT" => self.recipient(&line, mood).await?,
                "DATA" => self.data().await?,
                "QUIT" => {
                    self.say("221 bye").await?;
                    return Ok(None);
                }
                _ => self.say("502 not implemented").await?,
            }
        }
    }

    async fn authenticate(&mut self, line: &str) -> std::io::Result<()> {
        let response = line.strip_prefix("AUTH PLAIN ").unwrap();
        let decoded = String::from_utf8(BASE64.decode(response.as_bytes()).unwrap()).unwrap();
        let mut parts = decoded.split('\0').skip(1).map(str::to_owned);
        let login = (parts.next().unwrap(), parts.next().unwrap());
        let known = login == (USER.to_owned(), PASSWORD.to_owned());
        self.login = Some(login);
        self.say(if known { "235 welcome" } else { "535 who are you" }).await
    }

    async fn recipient(&mut self, line: &str, mood: Mood) -> std::io::Result<()> {
        self.state.asked.fetch_add(1, Ordering::SeqCst);
        let address = line.split(['<', '>']).nth(1).unwrap_or_default();
        address.clone_into(&mut self.to);
        match mood {
            // As many servers do, it repeats what it was told.
            Mood::Refuses(status) => self.say(&format!("{status} <{address}> no")).await,
            Mood::Good | Mood::Silent => self.say("250 OK").await,
        }
    }

    async fn data(&mut self) -> std::io::Result<()> {
        self.say("354 go ahead").await?;
        let mut text = String::new();
        while let Some(line) = self.line().await? {
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push_str("\r\n");
        }
        let received = Received {
            to: self.to.clone(),
            text,
            encrypted: self.encrypted,
            login: self.login.clone(),
        };
        // The test may be over.
        self.state.mails.send(received).ok();
        self.say("250 kept").await
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
