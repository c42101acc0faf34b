//! One POST to the app, in the pod's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::NotifyError;

/// Bytes of an answer that are looked at: its first line is among them, and nothing else counts.
const MAX_HEAD: usize = 256;

/// Sends an empty POST. Any 2xx is the app's "I know".
pub(super) async fn post(port: u16, path: &str) -> Result<(), NotifyError> {
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(NotifyError::BadPath(path.to_owned()));
    }
    let failed = |error: std::io::Error| NotifyError::Connect {
        port,
        cause: error.kind(),
    };
    let mut stream = connect(port).await.map_err(failed)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\nuser-agent: sealpod-sidecar/{}\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::with_capacity(MAX_HEAD);
    let mut limited = stream.take(u64::try_from(MAX_HEAD).expect("it is small"));
    while !head.contains(&b'\n') {
        if limited.read_buf(&mut head).await.map_err(failed)? == 0 {
            break;
        }
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(other) => Err(NotifyError::Status(other)),
        None => Err(NotifyError::NotHttp),
    }
}

/// Apps listen on one family or on both.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    match TcpStream::connect((IpAddr::V4(Ipv4Addr::LOCALHOST), port)).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect((IpAddr::V6(Ipv6Addr::LOCALHOST), port))
            .await
            .map_err(|_| error),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|b| *b == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.strip_prefix("HTTP/1.")?;
    let code = rest.get(..3)?;
    code.parse().ok().filter(|code| (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 500\r\n"), Some(500));
        for bad in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 2",
            "SSH-2.0-x 200",
            "HTTP/1.1 abc",
            "HTTP/1.1 999 x",
            "\r\n",
        ] {
            assert_eq!(status(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_path_cannot_smuggle_a_header() {
        for bad in ["", "reload", "/a b", "/a\r\nx: y", "/ä"] {
            assert!(matches!(post(1, bad).await, Err(NotifyError::BadPath(_))), "{bad:?}");
        }
    }
}
