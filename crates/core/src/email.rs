//! Addresses of people, in the one form in which they are stored, counted and compared.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest address that a mail server takes, in bytes (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const MAX_EMAIL: usize = 254;
const MAX_LOCAL_PART: usize = 64;

/// What is wrong with an address. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    #[error("must be an e-mail address such as name@example.com, in ASCII (an international domain as `xn--…`)")]
    NotAnAddress,
    #[error("must be at most {MAX_EMAIL} characters")]
    TooLong,
}

/// An e-mail address, trimmed and in lower case. Providers that tell `A@…` from `a@…` are long gone, while accounts
/// that differ in case only are how one person gets around the limits or the rights of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        if text.len() > MAX_EMAIL {
            return Err(EmailError::TooLong);
        }
        let (local, domain) = text.split_once('@').ok_or(EmailError::NotAnAddress)?;
        // The unquoted form of RFC 5321: what a header or a command of SMTP can hold as it is.
        let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
        let local_part = local.len() <= MAX_LOCAL_PART
            && local
                .split('.')
                .all(|atoms| !atoms.is_empty() && atoms.bytes().all(atom));
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if local_part && domain.split('.').all(label) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(EmailError::NotAnAddress)
        }
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_an_address_is_one() {
        for text in ["ada@example.com", " Ada@Example.COM\n", "\tADA@example.com "] {
            assert_eq!(text.parse::<Email>().unwrap().as_str(), "ada@example.com", "{text:?}");
        }
        for text in ["o'neill+tag@mail.example.org", "a@localhost", "x@xn--bcher-kva.example"] {
            assert_eq!(text.parse::<Email>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_could_break_out_of_a_header_or_name_two_people_is_no_address() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "@",
            "a@",
            "@b",
            "a",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a@b..c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@-b",
            "a@b-",
            "a@b\r\nBcc: c@d",
            "a\0@b",
            "\"a b\"@c",
            "a@[127.0.0.1]",
            "é@b",
            "a@é",
            "а@b",
            "a@b,c@d",
            "<a@b>",
            &long,
        ] {
            assert_eq!(text.parse::<Email>(), Err(EmailError::NotAnAddress), "{text:?}");
        }
        let long = format!("a@{}", "b.".repeat(200));
        assert_eq!(long.parse::<Email>(), Err(EmailError::TooLong));
    }

    proptest! {
        #[test]
        fn an_address_reads_back_as_itself(text in "\\PC{0,40}@\\PC{0,40}|[aA.b@ -]{0,12}") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str().parse::<Email>(), Ok(email.clone()));
                prop_assert!(email.as_str().is_ascii() && !email.as_str().contains(char::is_whitespace));
            }
        }
    }
}
