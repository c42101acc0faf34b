//! Whether the cluster can run what we add.

use std::time::Duration;

use kube::Client;

/// The first with native sidecars for everybody.
const OLDEST: (u32, u32) = (1, 33);
const RETRY: Duration = Duration::from_secs(1);

/// The cluster is too old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Kubernetes 1.33 or newer is needed, for native sidecars, and this cluster is {0}; upgrade it, or uninstall the injector"
)]
pub struct TooOld(String);

/// Waits until the API server says what it is.
pub async fn require(client: &Client) -> Result<(), TooOld> {
    loop {
        match client.apiserver_version().await {
            Ok(info) => return check(&info.major, &info.minor),
            Err(error) => tracing::warn!(%error, "cannot ask the API server for its version; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Some distributions write `33+`. What is no number is not held against anybody.
fn check(major: &str, minor: &str) -> Result<(), TooOld> {
    let number = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse::<u32>().ok()
    };
    match (number(major), number(minor)) {
        (Some(major_number), Some(minor_number)) if (major_number, minor_number) < OLDEST => {
            Err(TooOld(format!("{major}.{minor}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_without_native_sidecars_is_refused_in_one_line() {
        for (major, minor) in [("1", "33"), ("1", "35+"), ("2", "0"), ("", "")] {
            assert_eq!(check(major, minor), Ok(()), "{major}.{minor}");
        }
        for minor in ["32", "29+", "0"] {
            let text = check("1", minor).unwrap_err().to_string();
            assert!(
                text.contains(&format!("this cluster is 1.{minor}")) && !text.contains('\n'),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn the_cluster_itself_is_asked() {
        let answer = tower::service_fn(|request: axum::http::Request<kube::client::Body>| async move {
            assert_eq!(request.uri().path(), "/version");
            let info = json!({
                "major": "1", "minor": "31", "gitVersion": "v1.31.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            });
            Ok::<_, tower::BoxError>(axum::http::Response::new(kube::client::Body::from(
                info.to_string().into_bytes(),
            )))
        });
        let refused = require(&Client::new(answer, "sealpod")).await;
        assert_eq!(refused, Err(TooOld("1.31".to_owned())));
    }
}
