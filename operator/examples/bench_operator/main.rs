//! The user of `cargo xtask bench operator`: makes objects, watches what the controller makes of them, and says how long it
//! took. A process of its own, so that its memory and its time are not the controller's.
//!
//! Works in the cluster of `KUBECONFIG`. Reads lines of JSON from its standard input and prints one for each: first
//! `{"namespace","server","admin_key"}`, answered when an Application with secrets is there, then any of
//!
//! - `{"one":{"count":100,"warm_up":10}}`: a SecretBinding after the other, each from its creation until it is ready;
//! - `{"many":{"count":2500}}`: all at once, until the last is ready;
//! - `{"change":{"count":50}}`: a value after the other, each from before it is set until the Secret of Kubernetes has it;
//! - `{"foreign":{"count":128,"bytes":1000000}}`: Secrets that are none of ours;
//! - `{"rest":{"seconds":60}}`: how many writes to bindings and Secrets there are while nobody changes anything;
//! - `{"clear":{}}`: the namespace is deleted, until it is gone.
#![forbid(unsafe_code)]

mod objects;
mod seen;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use sealpod_core::SecretText;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use objects::Stage;
use seen::{Seen, Watch};

/// Objects on their way to the API server at a time.
const AT_ONCE: usize = 32;
/// For anything to become as it should be.
const PATIENCE: Duration = Duration::from_mins(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    namespace: String,
    server: String,
    admin_key: SecretText,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    One { count: usize, warm_up: usize },
    Many { count: usize },
    Change { count: usize },
    Foreign { count: usize, bytes: usize },
    Rest { seconds: u64 },
    Clear {},
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut lines = std::io::stdin().lines();
    let line = lines.next().context("nothing was ordered")??;
    let setting: Setting = serde_json::from_str(&line).context("the first line says where")?;
    let kube = Client::try_default().await.context("no cluster to be found")?;
    let stage = Stage::prepare(kube.clone(), setting.namespace, &setting.server, setting.admin_key).await?;
    let watch = Watch::start(&kube, &stage.namespace);
    let mut user = User { stage, watch, made: 0 };
    println!("{}", json!({"prepared": true}));
    for line in lines {
        let order: Order = serde_json::from_str(&line?).context("this line is no order")?;
        let answer = match order {
            Order::One { count, warm_up } => user.one(count, warm_up).await?,
            Order::Many { count } => user.many(count).await?,
            Order::Change { count } => user.change(count).await?,
            Order::Foreign { count, bytes } => user.foreign(count, bytes).await?,
            Order::Rest { seconds } => user.rest(Duration::from_secs(seconds)).await?,
            Order::Clear {} => {
                let began = Instant::now();
                user.stage.clear().await?;
                json!({"took": began.elapsed().as_micros()})
            }
        };
        println!("{answer}");
    }
    Ok(())
}

struct User {
    stage: Stage,
    watch: Watch,
    made: usize,
}

impl User {
    fn names(&mut self, count: usize) -> Vec<String> {
        let first = self.made;
        self.made += count;
        (first..self.made).map(|n| format!("binding-{n:05}")).collect()
    }

    async fn one(&mut self, count: usize, warm_up: usize) -> Result<serde_json::Value> {
        let mut times = Vec::with_capacity(count);
        for (n, name) in self.names(count + warm_up).into_iter().enumerate() {
            let began = Instant::now();
            self.stage.bind(&name).await?;
            let at = self
                .until(|seen| matches!(seen, Seen::Ready(ready) if *ready == name))
                .await?;
            if n >= warm_up {
                times.push(at - began);
            }
        }
        Ok(summary(times))
    }

    async fn many(&mut self, count: usize) -> Result<serde_json::Value> {
        let names = self.names(count);
        let mut waiting: HashSet<String> = names.iter().cloned().collect();
        let began = Instant::now();
        let stage = &self.stage;
        let made = stream::iter(&names)
            .map(|name| stage.bind(name))
            .buffer_unordered(AT_ONCE);
        let made = made.try_collect::<Vec<()>>();
        let watch = &mut self.watch;
        let ready = async {
            let mut last = began;
            while !waiting.is_empty() {
                let (seen, at) = watch.next().await?;
                if let Seen::Ready(name) = seen
                    && waiting.remove(&name)
                {
                    last = at;
                }
            }
            anyhow::Ok(last)
        };
        let both = async { tokio::try_join!(made, ready) };
        let (_, last) = timeout(PATIENCE, both)
            .await
            .context("they do not all become ready")??;
        Ok(json!({"answers": count, "took": (last - began).as_micros()}))
    }

    async fn change(&mut self, count: usize) -> Result<serde_json::Value> {
        let (binding, secret) = ("changing", "changing-copy");
        self.stage.set("before").await?;
        self.stage.copy(binding, secret).await?;
        self.until(|seen| matches!(seen, Seen::Copy(value) if value == b"before"))
            .await?;
        let mut times = Vec::with_capacity(count);
        for n in 0..count {
            let value = format!("value-{n}");
            let began = Instant::now();
            self.stage.set(&value).await?;
            let has_it = |seen: &Seen| matches!(seen, Seen::Copy(copy) if copy == value.as_bytes());
            times.push(self.until(has_it).await? - began);
        }
        Ok(summary(times))
    }

    async fn foreign(&mut self, count: usize, bytes: usize) -> Result<serde_json::Value> {
        let stage = &self.stage;
        let made = stream::iter(0..count).map(|n| stage.foreign(n, bytes));
        made.buffer_unordered(4).try_collect::<Vec<()>>().await?;
        Ok(json!({"answers": count}))
    }

    async fn rest(&mut self, long: Duration) -> Result<serde_json::Value> {
        while timeout(Duration::from_millis(1), self.watch.next()).await.is_ok() {}
        let mut writes = 0;
        let all = async {
            loop {
                self.watch.next().await?;
                writes += 1;
            }
        };
        if let Ok(ended) = timeout(long, all).await {
            let ended: Result<()> = ended;
            ended?;
        }
        Ok(json!({"writes": writes}))
    }

    /// When something was seen of which `wanted` holds.
    async fn until(&mut self, wanted: impl Fn(&Seen) -> bool) -> Result<Instant> {
        let found = async {
            loop {
                let (seen, at) = self.watch.next().await?;
                if wanted(&seen) {
                    return anyhow::Ok(at);
                }
            }
        };
        timeout(PATIENCE, found).await.context("nothing of the kind appears")?
    }
}

/// In microseconds, as the bench reads it.
fn summary(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).map_or(0, Duration::as_micros)
    };
    let took: Duration = times.iter().sum();
    json!({"answers": times.len(), "p50": at(50), "p99": at(99), "max": at(100), "took": took.as_micros()})
}
