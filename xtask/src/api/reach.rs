//! Whether the calls got anywhere: a run in which every answer is a 404 passes every check, and shows nothing.

use std::collections::BTreeSet;

use anyhow::Result;

use super::schemathesis::Outcome;
use crate::process::Failure;

/// Fewest operations that one caller or another has to have done with success.
const OPERATIONS: usize = 50;

pub fn require(outcomes: &[Outcome]) -> Result<()> {
    let done: BTreeSet<_> = outcomes
        .iter()
        .flat_map(|outcome| succeeded(&outcome.metrics))
        .collect();
    if done.len() >= OPERATIONS {
        return Ok(());
    }
    Err(Failure::new(format!(
        "only {} operations were called with success, of at least {OPERATIONS}",
        done.len()
    ))
    .advice("make what the examples of the description name in `populate` of xtask/src/api/server.rs")
    .into())
}

/// Methods and routes of the planes that some call got a 2xx from.
fn succeeded(metrics: &str) -> impl Iterator<Item = (&str, &str)> {
    metrics
        .lines()
        .filter(|line| line.starts_with("sealpod_http_requests_total{") && line.contains("status=\"2"))
        .filter_map(|line| Some((label(line, "method")?, label(line, "route")?)))
        .filter(|(_, route)| route.starts_with("/api/"))
}

fn label<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_the_planes_that_succeeded_count() {
        let metrics = r#"# TYPE sealpod_http_requests counter
sealpod_http_requests_total{method="GET",route="/api/orgs",status="200",caller="user"} 3
sealpod_http_requests_total{method="GET",route="/api/orgs",status="401",caller="none"} 3
sealpod_http_requests_total{method="POST",route="/api/orgs",status="404",caller="user"} 1
sealpod_http_requests_total{method="DELETE",route="/api/orgs/{org}",status="204",caller="user"} 1
sealpod_http_requests_total{method="GET",route="/docs",status="200",caller="none"} 1
"#;
        let found: Vec<_> = succeeded(metrics).collect();
        assert_eq!(found, [("GET", "/api/orgs"), ("DELETE", "/api/orgs/{org}")]);
    }
}
