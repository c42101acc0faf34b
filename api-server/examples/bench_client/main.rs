//! The callers of `cargo xtask bench server`: a process of its own, so that its memory and its time are not the server's.
//!
//! Reads what to do as one line of JSON from its standard input (credentials are in it, and everybody on the machine can
//! read arguments), prints one line of JSON for each result, and fails at the first answer that is not what it should be.
//!
//! - `{"address":"127.0.0.1:7100","ask":{"callers":8,"warm_up":50,"requests":[REQUEST, …]}}` asks each of them once.
//! - `{"address":…,"wait":{"keys":["cr_sa_…", …],"waiting":9000,"path":"/api/…/bundle?key=…","change":REQUEST}}` reads
//!   a bundle on so many connections, then waits on each for a change. It prints `{"waiting":9000,…}`; makes the change
//!   for each line of its input and prints how soon all had the new bundle; ends when its input ends.
//! - `{"address":…,"load":{"callers":8,"per_second":200,"requests":[REQUEST, …]}}` asks for them in turn at this rate, and
//!   prints for each line of its input how long the answers since the line before took; ends when its input ends.
//!
//! A REQUEST is `{"method","path","headers":[[name, value], …],"body"}`. With `"ca":"FILE"` beside `address`, it speaks
//! TLS to the server whose certificate that file vouches for, and with `"http2":true` HTTP/2 as well.
#![forbid(unsafe_code)]

mod ask;
mod http;
mod load;
mod times;
mod wait;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use http::Target;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    address: SocketAddr,
    ca: Option<PathBuf>,
    #[serde(default)]
    http2: bool,
    ask: Option<ask::Order>,
    wait: Option<wait::Order>,
    load: Option<load::Order>,
}

/// One thread: the server has the rest of the machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    sealpod_runtime::process::open_files();
    let mut input = lines();
    let line = input.recv().await.context("nothing was ordered")?;
    let order: Order = serde_json::from_str(&line).context("the order is not what is expected")?;
    let target = Target::new(order.address, order.ca.as_deref(), order.http2)?;
    if let Some(order) = order.ask {
        ask::run(&target, order).await?;
    }
    if let Some(order) = order.wait {
        wait::run(&target, order, input).await?;
    } else if let Some(order) = order.load {
        load::run(&target, order, input).await?;
    }
    Ok(())
}

/// Of the standard input, until it ends.
fn lines() -> UnboundedReceiver<String> {
    let (read, lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if read.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
