//! As little of HTTP/1.1 as a kept connection needs, so that the client costs the machine little beside the server.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest answer that is read.
const MAX_ANSWER: usize = 16 << 20;
/// In the server's certificate.
const HOST: &str = "localhost";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

impl Request {
    /// As it goes over the wire in HTTP/1.1.
    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {HOST}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            let _ = write!(
                text,
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        } else {
            text += "\r\n";
        }
        text.into_bytes()
    }
}

/// Where the server is, and how it is spoken to.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    http2: bool,
}

impl Target {
    /// Over TLS with the certificates in the file `ca`.
    pub fn new(address: SocketAddr, ca: Option<&Path>, http2: bool) -> Result<Self> {
        ensure!(ca.is_some() || !http2, "HTTP/2 is spoken over TLS only: name its `ca`");
        let tls = ca.map(|ca| tls(ca, http2)).transpose()?.map(Arc::new);
        Ok(Self { address, tls, http2 })
    }

    /// With HTTP/2, it connects at the first question.
    pub async fn connect(&self) -> Result<Connection> {
        if let Some(tls) = self.tls.as_ref().filter(|_| self.http2) {
            // As the sidecar's own client does, but for TLS that all share: reading the certificates anew takes time.
            let client = reqwest::Client::builder().no_proxy().resolve(HOST, self.address);
            let client = client.tls_backend_preconfigured(ClientConfig::clone(tls)).build()?;
            let base = format!("https://{HOST}:{}", self.address.port());
            return Ok(Connection::Http2(client, base));
        }
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(tls));
                Box::new(connector.connect(ServerName::try_from(HOST)?, stream).await?)
            }
        };
        Ok(Connection::Kept(Kept {
            stream,
            buffer: Vec::with_capacity(1024),
        }))
    }
}

fn tls(ca: &Path, http2: bool) -> Result<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("cannot read {}", ca.display()))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every connection is that of another pod, which knows nothing of the others' handshakes.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: String,
}

/// One connection, which is kept.
pub enum Connection {
    Kept(Kept),
    /// A client that has no other connection, and the beginning of its URLs.
    Http2(reqwest::Client, String),
}

impl Connection {
    /// Returns when the last byte of the answer is there.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer> {
        match self {
            Self::Kept(kept) => kept.ask(&request.bytes()).await,
            Self::Http2(client, base) => ask(client, base, request).await,
        }
    }
}

async fn ask(client: &reqwest::Client, base: &str, request: &Request) -> Result<Answer> {
    let method = reqwest::Method::from_bytes(request.method.as_bytes())?;
    let mut asked = client.request(method, format!("{base}{}", request.path));
    for (name, value) in &request.headers {
        asked = asked.header(name, value);
    }
    if let Some(body) = &request.body {
        asked = asked.header("content-type", "application/json").body(body.clone());
    }
    let response = asked.send().await?;
    let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
    Ok(Answer {
        status: response.status().as_u16(),
        etag: etag.map(str::to_owned),
        body: response.text().await?,
    })
}

/// HTTP/1.1.
pub struct Kept {
    stream: Box<dyn Stream>,
    /// What was received and not read yet.
    buffer: Vec<u8>,
}

impl Kept {
    async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        loop {
            if let Some((answer, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(answer);
            }
            ensure!(
                self.buffer.len() < MAX_ANSWER,
                "an answer is longer than {MAX_ANSWER} bytes"
            );
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection before its answer was whole");
            }
        }
    }
}

/// The answer at the start of `received` and its length in bytes; none while it is not whole.
fn parse(received: &[u8]) -> Result<Option<(Answer, usize)>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = received.windows(END.len()).position(|bytes| bytes == END) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&received[..head])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("an answer begins with its status")?.parse()?;
    let (mut length, mut etag) = (0, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse()?,
            "etag" => etag = Some(value.to_owned()),
            "transfer-encoding" => bail!("the answer comes in chunks, which this client does not read"),
            _ => {}
        }
    }
    // That of a 304 is the length of what it stands for.
    let length: usize = if status == 304 { 0 } else { length };
    let begin = head + END.len();
    let Some(body) = received.get(begin..begin + length) else {
        return Ok(None);
    };
    let answer = Answer {
        status,
        etag,
        body: String::from_utf8_lossy(body).into_owned(),
    };
    Ok(Some((answer, begin + length)))
}
