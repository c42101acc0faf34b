//! The api-server's words for what is wrong.

use std::fmt;

use crate::error::printable;

macro_rules! codes {
    ($($(#[$meta:meta])* $variant:ident = $word:literal,)*) => {
        /// What a program decides by: the `code` of a problem document. New ones may come, so a `match` needs a rest.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$meta])* $variant,)*
            /// Of a newer server; kept as it came, without control characters.
            Other(String),
        }

        impl Code {
            pub fn of(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(printable(other)),
                }
            }

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }
    };
}

codes! {
    /// 400: [`crate::Error::problem`] names each field and what is wrong with it.
    ValidationFailed = "validation_failed",
    Unauthorized = "unauthorized",
    Forbidden = "forbidden",
    NotFound = "not_found",
    MethodNotAllowed = "method_not_allowed",
    /// 409: a live object has that name.
    Conflict = "conflict",
    /// 409: the organization of the management plane stays as it is.
    DefaultOrg = "default_org",
    LastOwner = "last_owner",
    /// 409: an operator owns the object.
    Managed = "managed",
    /// 409: an idempotent call had made it already, and its key cannot be shown again.
    AlreadyCreated = "already_created",
    /// 409: another request was sent under this `Idempotency-Key`.
    IdempotencyMismatch = "idempotency_mismatch",
    /// 409: the first try is not done yet; see `Retry-After`.
    IdempotencyInProgress = "idempotency_in_progress",
    QuotaExceeded = "quota_exceeded",
    /// 410: list everything, and follow the changes from there.
    CursorGone = "cursor_gone",
    /// 412: somebody else changed it first.
    PreconditionFailed = "precondition_failed",
    PayloadTooLarge = "payload_too_large",
    UriTooLong = "uri_too_long",
    UnsupportedMediaType = "unsupported_media_type",
    RateLimited = "rate_limited",
    Internal = "internal",
    Unavailable = "unavailable",
    /// 503: the server has as much to do as it takes on; see `Retry-After`.
    Overloaded = "overloaded",
    MailDisabled = "mail_disabled",
    BackupDamaged = "backup_damaged",
    BackupsDisabled = "backups_disabled",
    DiskFull = "disk_full",
    Timeout = "timeout",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_wire_has_its_variant() {
        let source = include_str!("../../core/src/wire/problem.rs");
        let words: Vec<_> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": &str = \""))
            .map(|(_, rest)| rest.trim_end_matches("\";"))
            .filter(|word| !word.contains('/'))
            .collect();
        assert!(words.len() > 15, "{words:?}");
        for word in words {
            let code = Code::of(word);
            assert!(
                !matches!(code, Code::Other(_)),
                "give `{word}` a variant in crates/client/src/code.rs"
            );
            assert_eq!(code.as_str(), word);
        }
    }

    #[test]
    fn a_code_of_the_future_is_kept_and_cannot_break_out_of_a_line() {
        assert_eq!(Code::of("on_fire"), Code::Other("on_fire".to_owned()));
        assert!(!Code::of("on\nfire").to_string().contains('\n'));
    }
}
