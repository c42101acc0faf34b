//! What can go wrong with a call, in the words that a caller decides by.

use std::time::Duration;

use sealpod_core::wire::problem::Problem;

use crate::Code;

/// Longest text of an answer that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// Why a call failed. A variant that carries a [`Problem`] is the api-server's own word: an answer of that status
/// without a problem document (a proxy's error page, say) is [`Error::BadAnswer`], so that nobody takes a stranger's
/// 404 for "it is gone".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the server cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("the server's certificate is not trusted: {reason}; check the CA that was given")]
    Untrusted { reason: String },
    #[error("the server did not answer within {} s", .deadline.as_secs_f32())]
    Timeout { deadline: Duration },
    /// 401: the credential is unknown, expired or revoked.
    #[error("the server does not accept the credential ({})", printable(&.0.code))]
    Unauthorized(Box<Problem>),
    /// 403: the credential is good, but may not do this.
    #[error("the server refuses this caller: {}", said(.0))]
    Forbidden(Box<Problem>),
    /// 404: it does not exist, was deleted, or is another organization's.
    #[error("not found: {}", said(.0))]
    NotFound(Box<Problem>),
    /// 409 or 412; [`Problem::code`] says which conflict.
    #[error("conflict: {}", said(.0))]
    Conflict(Box<Problem>),
    /// Any other 4xx: the request is wrong and will be wrong again.
    #[error("the server rejects the request: {}", said(.0))]
    Rejected(Box<Problem>),
    /// 408, 429, 5xx, or the first try of an idempotent call is not done yet: the server cannot do it now.
    #[error("the server is not able to answer now (status {status})")]
    Unavailable {
        status: u16,
        code: Option<String>,
        /// At most five minutes, whatever the server said.
        retry_after: Option<Duration>,
    },
    /// Whatever answered is not the api-server, or not one that this client understands.
    #[error("the answer is not one of the api-server (status {status}): {reason}; check the URL and what lies between")]
    BadAnswer { status: u16, reason: String },
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the name {name:?} cannot be part of a URL; choose another name")]
    Unaddressable { name: String },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            // A certificate heals by itself while a CA is being replaced; a bad answer when a proxy recovers.
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::BadAnswer { .. } => true,
            Self::Unauthorized(_)
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Rejected(_)
            | Self::TooLarge { .. }
            | Self::Unaddressable { .. } => false,
        }
    }

    /// The api-server's own word for what is wrong, where it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unavailable { code, .. } => code.as_deref(),
            other => other.problem().map(|problem| problem.code.as_str()),
        }
    }

    /// As [`Error::code`], to decide by.
    pub fn kind(&self) -> Option<Code> {
        self.code().map(Code::of)
    }

    /// Whether a read that failed so is worth another try within the same call.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }

    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Unauthorized(problem)
            | Self::Forbidden(problem)
            | Self::NotFound(problem)
            | Self::Conflict(problem)
            | Self::Rejected(problem) => Some(problem),
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::BadAnswer { .. }
            | Self::TooLarge { .. }
            | Self::Unaddressable { .. } => None,
        }
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// `detail (code)`, and what is wrong with each field.
fn said(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() {
        problem.code.clone()
    } else {
        format!("{} ({})", problem.detail, problem.code)
    };
    for (field, reasons) in &problem.errors {
        text.push_str("; ");
        text.push_str(field);
        text.push_str(": ");
        text.push_str(&reasons.join(", "));
    }
    printable(&text)
}

/// Text of unknown origin for one line of a log: no control characters, not longer than [`MAX_SHOWN`].
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(MAX_SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_break_out_of_its_log_line() {
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: 400,
            detail: format!("bad\nlevel=error {}", "x".repeat(1_000)),
            code: format!("no\nlevel=error {}", "x".repeat(1_000)),
            errors: std::collections::BTreeMap::new(),
            id: None,
        };
        let variants = [
            Error::Unauthorized,
            Error::Forbidden,
            Error::NotFound,
            Error::Conflict,
            Error::Rejected,
        ];
        for variant in variants {
            let text = variant(Box::new(problem.clone())).to_string();
            assert!(!text.contains('\n') && text.chars().count() < 400, "{text}");
        }
    }
}
