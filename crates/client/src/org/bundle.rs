//! The bundle: what the sidecar reads, and waits on.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use sealpod_core::wire::bundle::{Bundle, BundleRequest};

use super::Org;
use crate::path::append;
use crate::transport::POLL_GRACE;
use crate::{Error, Result};

/// A longer query goes into the body of a POST instead.
const MAX_QUERY_BYTES: usize = 4 * 1024;
const MAX_ETAG_BYTES: usize = 256;

/// Answer to a bundle call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Nothing has changed since the given `etag`.
    NotModified,
    Bundle(Box<Bundle>),
}

impl Org<'_> {
    /// What the caller may read of an environment, in one consistent snapshot. With `etag` and a `wait` this is a long
    /// poll. Never retried here: a caller that polls has a backoff of its own.
    pub async fn bundle(
        &self,
        project: &str,
        env: &str,
        request: &BundleRequest,
        etag: Option<&str>,
    ) -> Result<Fetched> {
        let target = self.at(&["projects", project, "envs", env, "bundle"])?;
        let query = query(request);
        let deadline = Duration::from_secs(request.wait) + POLL_GRACE;
        let answer = if query.len() > MAX_QUERY_BYTES {
            let call = self.client.call(Method::POST, target);
            call.once()
                .if_none_match(etag)
                .deadline(deadline)
                .send_json(request)
                .await?
        } else {
            let call = self.client.call(Method::GET, target + &query);
            call.once().if_none_match(etag).deadline(deadline).send().await?
        };
        if answer.status == StatusCode::NOT_MODIFIED {
            return match etag {
                Some(_) => Ok(Fetched::NotModified),
                None => Err(Error::BadAnswer {
                    status: 304,
                    reason: "nothing was asked that could be unchanged".to_owned(),
                }),
            };
        }
        let bundle: Bundle = answer.json()?;
        if is_etag(&bundle.etag) {
            Ok(Fetched::Bundle(Box::new(bundle)))
        } else {
            Err(Error::BadAnswer {
                status: answer.status.as_u16(),
                reason: "its etag is empty, longer than 256 bytes or no plain text".to_owned(),
            })
        }
    }
}

fn query(request: &BundleRequest) -> String {
    let mut query = String::new();
    for key in &request.key {
        append(&mut query, "key", key);
    }
    for pattern in &request.pattern {
        append(&mut query, "pattern", pattern.as_str());
    }
    for pinned in &request.version {
        append(&mut query, "version", &pinned.to_string());
    }
    if request.configurations {
        append(&mut query, "configurations", "true");
    }
    if !request.values {
        append(&mut query, "values", "false");
    }
    if request.wait > 0 {
        append(&mut query, "wait", &request.wait.to_string());
    }
    query
}

/// Whether the text may go back in a header as it is.
fn is_etag(text: &str) -> bool {
    (1..=MAX_ETAG_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_everything_that_differs_from_the_default() {
        assert_eq!(query(&BundleRequest::default()), "");
        let request = BundleRequest {
            key: vec!["a/b".to_owned(), "c&d=e".to_owned()],
            pattern: vec!["db-{x,y}*".parse().unwrap()],
            version: vec!["Feature:X:3".parse().unwrap()],
            configurations: true,
            values: false,
            wait: 30,
        };
        assert_eq!(
            query(&request),
            "?key=a%2Fb&key=c%26d%3De&pattern=db-%7Bx%2Cy%7D%2A&version=Feature%3AX%3A3&configurations=true&values=false&wait=30"
        );
    }

    #[test]
    fn an_etag_fits_a_header() {
        assert!(is_etag("a1-._~") && is_etag(&"x".repeat(256)));
        for bad in ["", "a b", "a\"b", "a\nb", "ü", &"x".repeat(257)] {
            assert!(!is_etag(bad), "{bad:?}");
        }
    }
}
