//! What can go wrong in a reconciliation, and what follows from it.

use std::time::Duration;

use sealpod_client::Error as ServerError;

/// A failed reconciliation: what was being done, and why it failed. Its text is for the log; [`Error::summary`] is for
/// users.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing}: {source}")]
    Server {
        doing: &'static str,
        // Boxed to keep every `Result` of this crate small.
        #[source]
        source: Box<ServerError>,
    },
    #[error("{doing}: {}", describe(.source))]
    Kubernetes {
        doing: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    /// Nobody refused; it is not the time. The next look decides.
    #[error("{0}")]
    NotNow(&'static str),
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same again fails again until somebody changes something.
    Permanent,
    /// It may pass by itself.
    Transient,
}

impl Error {
    pub fn server(doing: &'static str) -> impl FnOnce(ServerError) -> Self {
        move |source| Self::Server {
            doing,
            source: Box::new(source),
        }
    }

    pub fn kubernetes(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Server { source, .. } => match source.as_ref() {
                ServerError::Rejected(_) | ServerError::Unaddressable { .. } | ServerError::TooLarge { .. } => {
                    Class::Permanent
                }
                // The credential and the rights of the operator are put right by an administrator, without any change
                // of the object; not-found and conflict mean that the server changed between two calls.
                ServerError::Unreachable { .. }
                | ServerError::Untrusted { .. }
                | ServerError::Timeout { .. }
                | ServerError::Unauthorized(_)
                | ServerError::Forbidden(_)
                | ServerError::NotFound(_)
                | ServerError::Conflict(_)
                | ServerError::Unavailable { .. }
                | ServerError::BadAnswer { .. } => Class::Transient,
            },
            Self::Kubernetes { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_invalid() => Class::Permanent,
                _ => Class::Transient,
            },
            Self::NotNow(_) => Class::Transient,
        }
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { source, .. } => source.retry_after(),
            Self::Kubernetes { .. } | Self::NotNow(_) => None,
        }
    }

    /// Reason and message for the object's condition. Quotes nothing that a server sent, but for its stable error code.
    pub fn summary(&self) -> (&'static str, String) {
        match self {
            Self::Server { doing, source } => match source.code() {
                Some(code) => (
                    "ServerRefused",
                    format!("{doing}: the api-server answers `{code}`; the operator's log has the details"),
                ),
                None => ("ServerUnavailable", format!("{doing}: {source}; trying again")),
            },
            Self::Kubernetes { doing, source } => ("KubernetesError", format!("{doing}: {}", describe(source))),
            Self::NotNow(what) => ("Retrying", format!("{what}; trying again")),
        }
    }
}

/// The text of an error of the Kubernetes client without what it could not read: that may be a Secret.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.reason),
        kube::Error::SerdeError(_) => "the answer of the Kubernetes API cannot be read".to_owned(),
        kube::Error::Service(cause) => format!("the Kubernetes API cannot be reached: {}", innermost(cause.as_ref())),
        kube::Error::HyperError(cause) => format!("the Kubernetes API cannot be reached: {}", innermost(cause)),
        other => other.to_string(),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.last().unwrap_or(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use sealpod_core::wire::problem::Problem;

    fn problem(detail: &str) -> Problem {
        Problem {
            kind: String::new(),
            title: String::new(),
            status: 400,
            detail: detail.to_owned(),
            code: "validation_failed".to_owned(),
            errors: std::collections::BTreeMap::new(),
            id: None,
        }
    }

    #[test]
    fn only_what_fails_again_for_sure_is_permanent() {
        let server = |source| Error::server("x")(source).class();
        assert_eq!(server(ServerError::Rejected(Box::new(problem("")))), Class::Permanent);
        let down = ServerError::Unavailable {
            status: 503,
            code: None,
            retry_after: Some(Duration::from_secs(1)),
        };
        for passing in [
            down,
            ServerError::Unauthorized(Box::new(problem(""))),
            ServerError::NotFound(Box::new(problem(""))),
            ServerError::Conflict(Box::new(problem(""))),
        ] {
            assert_eq!(server(passing), Class::Transient);
        }
        let kubernetes = |reason: &str, code| {
            let status = Status::failure("", reason).with_code(code).boxed();
            Error::kubernetes("x")(kube::Error::Api(status)).class()
        };
        assert_eq!(kubernetes("Invalid", 422), Class::Permanent);
        assert_eq!(kubernetes("Conflict", 409), Class::Transient);
        assert_eq!(kubernetes("Forbidden", 403), Class::Transient);
    }

    #[test]
    fn a_condition_never_quotes_an_answer() {
        let (reason, message) = Error::server("reading")(ServerError::Rejected(Box::new(problem("canary")))).summary();
        assert_eq!(reason, "ServerRefused");
        assert!(
            message.contains("validation_failed") && !message.contains("canary"),
            "{message}"
        );
        let unreadable = serde_json::from_str::<u8>("\"canary\"").unwrap_err();
        let (_, message) = Error::kubernetes("reading")(kube::Error::SerdeError(unreadable)).summary();
        assert!(!message.contains("canary"), "{message}");
    }
}
