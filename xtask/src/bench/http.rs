//! One question without a client: for probes and metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

const PATIENCE: Duration = Duration::from_secs(10);

/// Status and body of `http://{address}{path}`.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status
        .zip(body)
        .with_context(|| format!("{path} is not answered in HTTP"))
}

/// An address of this machine on which nobody listens, and what keeps it from everybody but those who ask for just this one.
pub fn free_address() -> Result<(TcpSocket, SocketAddr)> {
    let held = TcpSocket::new_v4()?;
    // As servers do: two of these may have the same address while only one listens.
    held.set_reuseaddr(true)?;
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = held.local_addr()?;
    Ok((held, address))
}
