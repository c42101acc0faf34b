//! Asks as fast as a number of callers can that each wait for their answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde::Deserialize;

use super::http::{Connection, Request, Target};
use super::times::Times;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Connections, each of which asks for one thing at a time.
    callers: usize,
    /// How many of the requests come before the ones that are measured.
    warm_up: usize,
    requests: Vec<Request>,
}

pub async fn run(target: &Target, order: Order) -> Result<()> {
    let mut connections = Vec::with_capacity(order.callers);
    for _ in 0..order.callers {
        connections.push(target.connect().await?);
    }
    let (warm_up, measured) = order.requests.split_at(order.warm_up.min(order.requests.len()));
    all(&mut connections, warm_up).await?;
    let began = Instant::now();
    let times = all(&mut connections, measured).await?;
    Times::of(times, began.elapsed()).print();
    Ok(())
}

/// Each connection takes the next request that nobody has taken.
async fn all(connections: &mut [Connection], requests: &[Request]) -> Result<Vec<Duration>> {
    let next = Cell::new(0);
    let callers = connections.iter_mut().map(async |connection| {
        let mut times = Vec::new();
        while let Some(request) = requests.get(next.replace(next.get() + 1)) {
            let began = Instant::now();
            let answer = connection.ask(request).await?;
            times.push(began.elapsed());
            let (method, path, status) = (&request.method, &request.path, answer.status);
            ensure!(
                (200..300).contains(&status),
                "{method} {path} is {status}: {}",
                answer.body
            );
        }
        Ok(times)
    });
    Ok(try_join_all(callers).await?.concat())
}
