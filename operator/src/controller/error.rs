//! What can go wrong in a reconciliation, and what follows from it.

use std::time::Duration;

use sealpod_client::{Code, Error as ServerError};

use super::verdict::reasons;

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
    /// There is no use in trying again before that time, whatever else happens: no failure, but for who waits.
    #[error("{what}")]
    Later { what: &'static str, within: Duration },
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
            Self::NotNow(_) | Self::Later { .. } => Class::Transient,
        }
    }

    /// How long to wait in any case, as the server asked or as is known here.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { source, .. } => source.retry_after(),
            Self::Later { within, .. } => Some(*within),
            Self::Kubernetes { .. } | Self::NotNow(_) => None,
        }
    }

    /// The word for the object's condition, and for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Server { source, .. } => match source.as_ref() {
                ServerError::Unauthorized(_) | ServerError::Forbidden(_) => reasons::ADMIN_KEY_REJECTED,
                _ if source.kind() == Some(Code::QuotaExceeded) => reasons::QUOTA_EXCEEDED,
                ServerError::Rejected(_) => reasons::SERVER_REFUSED,
                ServerError::Unaddressable { .. } => reasons::INVALID_SPEC,
                ServerError::TooLarge { .. } => reasons::ANSWER_TOO_LARGE,
                ServerError::Untrusted { .. } => reasons::SERVER_NOT_TRUSTED,
                ServerError::Unreachable { .. }
                | ServerError::Timeout { .. }
                | ServerError::Unavailable { .. }
                | ServerError::BadAnswer { .. } => reasons::SERVER_UNAVAILABLE,
                ServerError::NotFound(_) | ServerError::Conflict(_) => reasons::RETRYING,
            },
            Self::Kubernetes { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() => reasons::KUBERNETES_FORBIDDEN,
                _ => reasons::KUBERNETES_ERROR,
            },
            Self::NotNow(_) | Self::Later { .. } => reasons::RETRYING,
        }
    }

    /// Reason and message for the object's condition. Quotes nothing that the server sent, but for an error code that
    /// this build knows.
    pub fn summary(&self) -> (&'static str, String) {
        let message = match self {
            Self::Server { doing, source } => format!("{doing}: {}", advice(source)),
            Self::Kubernetes { doing, source } => format!("{doing}: {}", describe(source)),
            Self::NotNow(what) | Self::Later { what, .. } => format!("{what}; trying again"),
        };
        (self.reason(), message)
    }
}

/// What is wrong with a call of the server, and what to do about it.
fn advice(error: &ServerError) -> String {
    let code = match error.kind() {
        // Words that this build does not know may be anything.
        None | Some(Code::Other(_)) => "unknown".to_owned(),
        Some(known) => known.to_string(),
    };
    if code == Code::QuotaExceeded.as_str() {
        return "a quota of the server is used up: delete what is not needed, or let an administrator raise it"
            .to_owned();
    }
    match error {
        ServerError::Unauthorized(_) | ServerError::Forbidden(_) => format!(
            "the server does not take the operator's own key (`{code}`): an administrator has to put the admin key into \
             the Secret that the controller mounts"
        ),
        ServerError::Rejected(_) => format!(
            "the server refuses what this object asks for (`{code}`): the operator's log says which field; change it in \
             the spec"
        ),
        ServerError::NotFound(_) | ServerError::Conflict(_) => {
            format!("the server has changed meanwhile (`{code}`); trying again")
        }
        ServerError::Unaddressable { .. } => "a name of the spec cannot be part of a URL: choose another".to_owned(),
        ServerError::TooLarge { limit } => {
            format!("the answer is larger than {limit} bytes: the application has too much for one look")
        }
        ServerError::Untrusted { .. } => {
            "the server's certificate is not signed by the CA that the operator has: check \
                                          the Secrets of the server's certificate and CA; trying again"
                .to_owned()
        }
        ServerError::Unreachable { .. } | ServerError::Timeout { .. } => format!("{error}; trying again"),
        ServerError::Unavailable { status, .. } => {
            format!("the server is not able to answer now (status {status}, `{code}`); trying again")
        }
        ServerError::BadAnswer { status, .. } => format!(
            "what answers is not the api-server (status {status}): check the server's URL and what lies between; trying \
             again"
        ),
    }
}

/// The text of an error of the Kubernetes client without what it could not read, which may be a Secret, and without
/// what an admission webhook or policy of others says about the object: it may quote one.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let message = status.message.as_str();
            let cut = ["denied the request", "denied request"]
                .iter()
                .find_map(|end| message.find(end).map(|at| at + end.len()));
            format!("{} ({})", &message[..cut.unwrap_or(message.len())], status.reason)
        }
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
    fn every_failure_has_its_word_and_says_what_to_do() {
        let problem = |code: &str| {
            let mut problem = problem("canary");
            problem.code = code.to_owned();
            Box::new(problem)
        };
        let hostile = "canary \n level=error";
        for (error, reason, says) in [
            (
                ServerError::Unauthorized(problem("unauthorized")),
                "AdminKeyRejected",
                "put the admin key into",
            ),
            (
                ServerError::Forbidden(problem(hostile)),
                "AdminKeyRejected",
                "`unknown`",
            ),
            (
                ServerError::Conflict(problem("quota_exceeded")),
                "QuotaExceeded",
                "raise it",
            ),
            (
                ServerError::Rejected(problem("quota_exceeded")),
                "QuotaExceeded",
                "raise it",
            ),
            (
                ServerError::Rejected(problem(hostile)),
                "ServerRefused",
                "change it in the spec",
            ),
            (ServerError::Conflict(problem("conflict")), "Retrying", "`conflict`"),
            (ServerError::NotFound(problem("not_found")), "Retrying", "meanwhile"),
            (
                ServerError::Unaddressable {
                    name: "canary".to_owned(),
                },
                "InvalidSpec",
                "choose another",
            ),
            (ServerError::TooLarge { limit: 7 }, "AnswerTooLarge", "7 bytes"),
            (
                ServerError::Untrusted {
                    reason: "canary".to_owned(),
                },
                "ServerNotTrusted",
                "check the Secrets",
            ),
            (
                ServerError::Unreachable {
                    reason: "refused".to_owned(),
                },
                "ServerUnavailable",
                "refused",
            ),
            (
                ServerError::Timeout {
                    deadline: Duration::from_secs(10),
                },
                "ServerUnavailable",
                "within 10 s",
            ),
            (
                ServerError::Unavailable {
                    status: 503,
                    code: Some(hostile.to_owned()),
                    retry_after: None,
                },
                "ServerUnavailable",
                "status 503",
            ),
            (
                ServerError::BadAnswer {
                    status: 502,
                    reason: "canary".to_owned(),
                },
                "ServerUnavailable",
                "check the server's URL",
            ),
        ] {
            let (word, message) = Error::server("reading")(error).summary();
            assert_eq!(word, reason, "{message}");
            assert!(message.starts_with("reading: ") && message.contains(says), "{message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn what_a_webhook_of_others_says_is_not_repeated() {
        for said in [
            "admission webhook \"policy.example.com\" denied the request: data is canary",
            "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: canary",
        ] {
            let status = Status::failure(said, "Forbidden").with_code(403).boxed();
            let (reason, message) = Error::kubernetes("writing")(kube::Error::Api(status)).summary();
            assert_eq!(reason, "KubernetesForbidden");
            assert!(message.contains("denied") && !message.contains("canary"), "{message}");
        }
        let status = Status::failure("exceeded quota: q", "Forbidden").with_code(403).boxed();
        let (_, message) = Error::kubernetes("writing")(kube::Error::Api(status)).summary();
        assert!(message.contains("exceeded quota: q"), "{message}");
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
