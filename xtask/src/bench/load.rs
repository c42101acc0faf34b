//! Asks as fast as a number of callers can that each wait for their answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use tokio::task::JoinSet;

use super::cases::Case;

/// How long requests took, the shortest first, and all of them together.
#[derive(Debug)]
pub struct Measured {
    times: Vec<Duration>,
    took: Duration,
}

impl Measured {
    /// The time within which so many of a hundred were answered.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(at.min(last)).copied().unwrap_or_default()
    }

    /// Answers in a second.
    #[allow(clippy::cast_precision_loss, reason = "shown without decimals")]
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    pub fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        Self { times, took }
    }
}

/// Every caller has one connection, which it keeps.
pub async fn run(url: &str, case: &Case, callers: usize, requests: usize) -> Result<Measured> {
    let requests = case.most.map_or(requests, |most| requests.min(most));
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(1).build()?;
        let (next, url, case) = (std::sync::Arc::clone(&next), url.to_owned(), case.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= requests {
                    return Ok(times);
                }
                times.push(ask(&client, &url, &case, n).await?);
            }
        });
    }
    let mut times = Vec::with_capacity(requests);
    while let Some(done) = tasks.join_next().await {
        let some: Result<Vec<Duration>> = done?;
        times.extend(some?);
    }
    Ok(Measured::of(times, began.elapsed()))
}

async fn ask(client: &Client, url: &str, case: &Case, n: usize) -> Result<Duration> {
    let path = (case.path)(n);
    let mut request = client.request(Method::from_bytes(case.method.as_bytes())?, format!("{url}{path}"));
    if let Some(token) = &case.token {
        request = request.bearer_auth(token);
    }
    if let Some(key) = &case.key {
        request = request.header("x-api-key", key);
    }
    if let Some(from) = case.from {
        request = request.header("x-forwarded-for", from(n));
    }
    if let Some(body) = &case.body {
        request = request.header("content-type", "application/json").body(body(n));
    }
    let began = Instant::now();
    let response = request
        .send()
        .await
        .with_context(|| format!("{} {path}", case.method))?;
    let status = response.status();
    let body = response.bytes().await?;
    let took = began.elapsed();
    if !status.is_success() {
        bail!("{} {path} is {status}: {}", case.method, String::from_utf8_lossy(&body));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_time_of_an_answer() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let measured = Measured::of(times, Duration::from_secs(2));
        let at = |percent| u64::try_from(measured.percentile(percent).as_millis()).unwrap();
        assert_eq!([at(50), at(99), at(100)], [100, 198, 200]);
        assert!((99.0..101.0).contains(&measured.rate()));
        assert_eq!(Measured::of(vec![], Duration::ZERO).percentile(99), Duration::ZERO);
    }
}
