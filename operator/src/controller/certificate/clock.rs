//! Whether the clock here may be trusted with dates that others go by.
//!
//! What a clock that is ahead signs nobody takes yet, and the server would show it at once.

use axum::http::Request;
use axum::http::header::DATE;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;

use super::error::KeepError;
use crate::certs::BACKDATED;

/// Compares it with that of the Kubernetes API, which each of its answers tells. A tunnel may leave that out: then there is
/// nothing to compare with.
pub async fn check(kube: &Client, now: Timestamp) -> Result<(), KeepError> {
    let question = Request::get("/version").body(Body::empty());
    let question = question.expect("a path and no body are a request");
    let answer = kube.send(question).await;
    let answer = answer.map_err(|error| KeepError::NoClock(crate::controller::error::describe(&error)))?;
    let Some(date) = answer.headers().get(DATE).and_then(|date| date.to_str().ok()) else {
        return Ok(());
    };
    let Ok(theirs) = rfc2822::DateTimeParser::new().parse_timestamp(date) else {
        return Ok(());
    };
    let ahead = now.duration_since(theirs);
    // Half of it is left to what the nodes of the clients differ by.
    if ahead.unsigned_abs() <= BACKDATED / 2 {
        return Ok(());
    }
    Err(KeepError::Clock {
        minutes: ahead.unsigned_abs().as_secs() / 60,
        direction: if ahead > SignedDuration::ZERO {
            "ahead of"
        } else {
            "behind"
        },
    })
}
