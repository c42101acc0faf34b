//! Waits for a change on many connections, as the sidecars of as many pods do.

use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::http::{Connection, Request, Target};
use super::times::Times;

/// Connections that are being opened at a time.
const OPENING: usize = 64;
/// Longest wait that the server takes, in seconds.
const WAIT: u64 = 120;
/// How soon everybody must have an answer.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Of service accounts; each waits on as many connections as the others.
    keys: Vec<String>,
    waiting: usize,
    /// Of a bundle.
    path: String,
    /// What changes the bundle.
    change: Request,
}

/// What one of those that wait tells.
enum Event {
    Waits,
    /// It has the new bundle.
    Woken(Instant),
    Failed(anyhow::Error),
}

pub async fn run(target: &Target, order: Order, mut changes: UnboundedReceiver<String>) -> Result<()> {
    ensure!(!order.keys.is_empty(), "nobody's key was given");
    let (tell, mut events) = unbounded_channel();
    let opening = Rc::new(Semaphore::new(OPENING));
    let began = Instant::now();
    let waiting = LocalSet::new();
    waiting
        .run_until(async {
            for n in 0..order.waiting {
                let waiter = Waiter {
                    target: target.clone(),
                    key: order.keys[n % order.keys.len()].clone(),
                    path: order.path.clone(),
                    opening: Rc::clone(&opening),
                    tell: tell.clone(),
                };
                tokio::task::spawn_local(waiter.run());
            }
            all_wait(&mut events, order.waiting).await?;
            let took = began.elapsed().as_millis();
            println!("{}", json!({ "waiting": order.waiting, "milliseconds": took }));
            while changes.recv().await.is_some() {
                // One that nobody asks on for a minute is closed by the server.
                let mut changing = target.connect().await?;
                wake(&mut changing, &order.change, &mut events, order.waiting)
                    .await?
                    .print();
            }
            Ok(())
        })
        .await
}

async fn all_wait(events: &mut UnboundedReceiver<Event>, count: usize) -> Result<()> {
    let mut waiting = 0;
    while waiting < count {
        match events.recv().await.context("somebody always waits")? {
            Event::Waits => waiting += 1,
            Event::Woken(_) => bail!("the bundle changed before everybody waited"),
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

/// From the first byte of the change to the last of each answer. Returns when all wait again.
async fn wake(
    changing: &mut Connection,
    change: &Request,
    events: &mut UnboundedReceiver<Event>,
    count: usize,
) -> Result<Times> {
    let began = Instant::now();
    let answer = changing.ask(change).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "the change is {}: {}",
        answer.status,
        answer.body
    );
    let (mut times, mut last, mut waiting) = (Vec::with_capacity(count), began, 0);
    while times.len() < count || waiting < count {
        let event = tokio::time::timeout(ANSWERED_WITHIN, events.recv()).await;
        let event = event.with_context(|| format!("only {} of {count} were woken", times.len()))?;
        match event.context("somebody always waits")? {
            Event::Waits => waiting += 1,
            Event::Woken(at) => {
                times.push(at - began);
                last = last.max(at);
            }
            Event::Failed(error) => return Err(error),
        }
    }
    ensure!(times.len() == count, "somebody was woken twice by one change");
    Ok(Times::of(times, last - began))
}

struct Waiter {
    target: Target,
    key: String,
    path: String,
    opening: Rc<Semaphore>,
    tell: UnboundedSender<Event>,
}

impl Waiter {
    async fn run(self) {
        let failed = self.wait().await.err();
        // Nobody listens any more when the program ends.
        let _ = failed.map(|error| self.tell.send(Event::Failed(error)));
    }

    /// 1. Reads the bundle. 2. Waits until it is another one. 3. Waits anew; a poll that ended by its time is no news.
    async fn wait(&self) -> Result<()> {
        let permit = self.opening.acquire().await?;
        let mut connection = self.target.connect().await?;
        let answer = connection.ask(&self.request(None)).await?;
        ensure!(answer.status == 200, "a bundle is {}: {}", answer.status, answer.body);
        let mut etag = answer.etag.context("a bundle has an ETag")?;
        drop(permit);
        self.tell.send(Event::Waits)?;
        loop {
            let answer = connection.ask(&self.request(Some(&etag))).await?;
            match answer.status {
                200 => {
                    self.tell.send(Event::Woken(Instant::now()))?;
                    etag = answer.etag.context("a bundle has an ETag")?;
                    self.tell.send(Event::Waits)?;
                }
                304 => {}
                status => bail!("a poll is {status}: {}", answer.body),
            }
        }
    }

    fn request(&self, etag: Option<&str>) -> Request {
        let mut request = Request {
            method: "GET".to_owned(),
            path: self.path.clone(),
            headers: vec![("x-api-key".to_owned(), self.key.clone())],
            body: None,
        };
        if let Some(etag) = etag {
            let first = if request.path.contains('?') { '&' } else { '?' };
            let _ = write!(request.path, "{first}wait={WAIT}");
            request.headers.push(("if-none-match".to_owned(), etag.to_owned()));
        }
        request
    }
}
