//! Asks for the same things in turn, so many a second, until its input ends.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;

use super::http::{Connection, Request, Target};
use super::times::Times;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Connections, each of which asks for one thing at a time.
    callers: usize,
    /// Of all connections together.
    per_second: u32,
    requests: Vec<Request>,
}

/// What all connections share.
struct Pace {
    began: Instant,
    between: Duration,
    next: Cell<u32>,
    times: RefCell<Vec<Duration>>,
}

/// Prints, for each line of its input, the times of the answers since the line before.
pub async fn run(target: &Target, order: Order, mut lines: UnboundedReceiver<String>) -> Result<()> {
    ensure!(
        order.per_second > 0 && !order.requests.is_empty(),
        "nothing was ordered"
    );
    let mut connections = Vec::with_capacity(order.callers);
    for _ in 0..order.callers {
        connections.push(target.connect().await?);
    }
    let pace = Pace {
        began: Instant::now(),
        between: Duration::from_secs(1) / order.per_second,
        next: Cell::new(0),
        times: RefCell::default(),
    };
    let callers = connections
        .iter_mut()
        .map(|connection| pace.ask(connection, &order.requests));
    let telling = async {
        let mut since = Instant::now();
        while lines.recv().await.is_some() {
            Times::of(pace.times.take(), since.elapsed()).print();
            since = Instant::now();
        }
    };
    tokio::select! {
        () = telling => Ok(()),
        failed = try_join_all(callers) => match failed {
            Err(error) => Err(error),
            Ok(_) => bail!("there are no callers"),
        },
    }
}

impl Pace {
    /// A time begins when the question was due: a server that is late with one answer is late with those behind it, too.
    async fn ask(&self, connection: &mut Connection, requests: &[Request]) -> Result<Infallible> {
        loop {
            let n = self.next.replace(self.next.get() + 1);
            let due = self.began + self.between * n;
            tokio::time::sleep_until(due.into()).await;
            let request = &requests[n as usize % requests.len()];
            let answer = connection.ask(request).await?;
            self.times.borrow_mut().push(due.elapsed());
            let (method, path, status) = (&request.method, &request.path, answer.status);
            ensure!(
                (200..300).contains(&status),
                "{method} {path} is {status}: {}",
                answer.body
            );
        }
    }
}
