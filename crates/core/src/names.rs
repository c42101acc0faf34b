//! The rules that names obey, parsed at the edge so that the inside only sees valid ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest application, environment and secret names, in characters.
pub const MAX_APPLICATION_NAME: usize = 200;
pub const MAX_ENVIRONMENT_NAME: usize = 100;
pub const MAX_SECRET_NAME: usize = 200;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1_000;
/// Longest configuration key, in characters.
pub const MAX_CONFIGURATION_KEY: usize = 500;
/// Longest name of a service account, in characters: `k8s/<cluster>/<namespace>/<binding>` of the operator takes up to
/// 305.
pub const MAX_ACCOUNT_NAME: usize = 400;
/// Longest DNS label, and longest DNS name.
pub const MAX_LABEL: usize = 63;
pub const MAX_DNS_NAME: usize = 253;
/// Longest version of a program, in characters.
pub const MAX_PROGRAM_VERSION: usize = 64;

/// What is wrong with a name. The text is for the person who sent it and never repeats what they sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("must not be blank")]
    Blank,
    #[error("must be at most {limit} characters")]
    TooLong { limit: usize },
    #[error("must not contain control characters")]
    ControlCharacter,
    #[error("has no letter a-z and no digit that could form a slug; send a `slug` of its own")]
    EmptySlug,
    #[error("must be a slug: lower-case a-z, 0-9 and single hyphens inside, for example `payments-api`")]
    NotASlug,
    #[error("must be 1 to 63 characters of a-z, 0-9 and hyphens, and begin and end with a letter or digit")]
    NotALabel,
    #[error("must begin with a letter, digit or `_`, and hold at most 200 letters, digits, `.`, `_` and `-`")]
    NotASecretKey,
    #[error(
        "must be a DNS name: at most 253 characters of a-z, 0-9, hyphens and full stops; each part begins and ends with a \
         letter or digit, and has at most 63 characters"
    )]
    NotADnsName,
    #[error("must be 1 to 64 letters, digits, `.`, `_`, `+` and `-`, and begin with a letter or digit")]
    NotAProgramVersion,
}

/// The name of a project (application) or environment in a path: equal to its own slug and not empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Slug(String);

impl Slug {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }

    /// The slug of free text; an error where nothing of it is left.
    pub fn of(text: &str) -> Result<Self, NameError> {
        Some(slug(text))
            .filter(|s| !s.is_empty())
            .map(Self)
            .ok_or(NameError::EmptySlug)
    }
}

impl FromStr for Slug {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || slug(text) != text {
            return Err(NameError::NotASlug);
        }
        within(text, MAX_APPLICATION_NAME)?;
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The slug of any text, perhaps empty. In this order: lower case; every character but a-z, 0-9, white space and `-`
/// is dropped; each run of white space and hyphens becomes one `-`; hyphens at both ends go.
pub fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            _ if (c == '-' || c.is_whitespace()) && !out.is_empty() && !out.ends_with('-') => out.push('-'),
            _ => {}
        }
    }
    if out.ends_with('-') {
        out.pop();
    }
    out
}

/// Organization, project and environment names of the organization plane: a DNS label.
pub fn check_label(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    if bytes.len() <= MAX_LABEL && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        Ok(())
    } else {
        Err(NameError::NotALabel)
    }
}

/// Labels with full stops between them: what Kubernetes calls pods and nodes.
pub fn check_dns_name(text: &str) -> Result<(), NameError> {
    if text.len() <= MAX_DNS_NAME && text.split('.').all(|label| check_label(label).is_ok()) {
        Ok(())
    } else {
        Err(NameError::NotADnsName)
    }
}

/// The version of a program, as it is written: `1.4.0-rc.1+build`.
pub fn check_program_version(text: &str) -> Result<(), NameError> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let all = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'));
    if first && all && text.len() <= MAX_PROGRAM_VERSION {
        Ok(())
    } else {
        Err(NameError::NotAProgramVersion)
    }
}

/// The rule by which the organization plane creates secret keys; a key that matches is also a safe file name.
pub fn check_secret_key(key: &str) -> Result<(), NameError> {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && key.len() <= MAX_SECRET_NAME {
        Ok(())
    } else {
        Err(NameError::NotASecretKey)
    }
}

/// Free text that names something: not blank, at most `limit` characters (not bytes), no control characters.
pub fn check_free_text(text: &str, limit: usize) -> Result<(), NameError> {
    if text.trim().is_empty() {
        return Err(NameError::Blank);
    }
    within(text, limit)?;
    if text.chars().any(char::is_control) {
        Err(NameError::ControlCharacter)
    } else {
        Ok(())
    }
}

/// At most `limit` characters (not bytes).
pub fn within(text: &str, limit: usize) -> Result<(), NameError> {
    if text.chars().nth(limit).is_some() {
        Err(NameError::TooLong { limit })
    } else {
        Ok(())
    }
}

/// The name of an environment variable for a key: upper case, every other character `_`, a leading digit gets `_`
/// before it.
pub fn variable_name(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 1);
    if key.starts_with(|c: char| c.is_ascii_digit()) {
        out.push('_');
    }
    out.extend(key.chars().map(|c| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    }));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slug_keeps_letters_digits_and_single_hyphens() {
        for (text, want) in [
            ("Hello World", "hello-world"),
            ("ALL CAPS", "all-caps"),
            ("already-slug", "already-slug"),
            ("Special!@#Chars", "specialchars"),
            ("Multiple   Spaces", "multiple-spaces"),
            ("  Leading Trailing  ", "leading-trailing"),
            ("123 Numbers", "123-numbers"),
            ("a---b---c", "a-b-c"),
            ("a - b", "a-b"),
            ("a_b", "ab"),
            ("a.b", "ab"),
            ("Crème Brûlée", "crme-brle"),
            ("- -", ""),
            ("!!!", ""),
            ("a\u{a0}b\tc", "a-b-c"),
        ] {
            assert_eq!(slug(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_slug_type_holds_only_its_own_slug() {
        assert!("payments-api".parse::<Slug>().is_ok());
        for bad in ["", "-a", "a-", "a--b", "A", "a b", "a_b", "é"] {
            assert_eq!(bad.parse::<Slug>(), Err(NameError::NotASlug), "{bad:?}");
        }
        assert_eq!(Slug::of("!!!"), Err(NameError::EmptySlug));
    }

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "0", "a-b", "a--b", &"a".repeat(63)] {
            assert!(check_label(good).is_ok(), "{good:?}");
        }
        for bad in ["", "-", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(check_label(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dns_names_are_labels_between_full_stops() {
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for good in [
            "a",
            "web-7d9f-x2x",
            "ip-10-0-0-1.eu.compute.internal",
            "0.1",
            &long[..253],
        ] {
            assert!(check_dns_name(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A",
            "a_b",
            "a/b",
            "-a.b",
            &"a".repeat(64),
            &long,
        ] {
            assert!(check_dns_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_of_programs_hold_nothing_that_a_terminal_or_a_query_would_mind() {
        for good in ["1", "0.1.0", "v1.2.3-rc.1+build_7", &"1".repeat(64)] {
            assert!(check_program_version(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".1", "-1", "1 2", "1\n", "é", "1/2", &"1".repeat(65)] {
            assert!(check_program_version(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secret_keys_are_safe_file_names() {
        for good in ["A", "_x", "9", "db.password", "a-b_c.d", &"k".repeat(200)] {
            assert!(check_secret_key(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "é", "a\0", &"k".repeat(201)] {
            assert!(check_secret_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn free_text_is_counted_in_characters() {
        assert!(check_free_text(&"é".repeat(200), 200).is_ok());
        assert_eq!(
            check_free_text(&"é".repeat(201), 200),
            Err(NameError::TooLong { limit: 200 })
        );
        assert_eq!(check_free_text(" \t ", 200), Err(NameError::Blank));
        assert_eq!(check_free_text("a\u{7}", 200), Err(NameError::ControlCharacter));
    }

    #[test]
    fn variables_are_upper_case_and_never_begin_with_a_digit() {
        assert_eq!(variable_name("db.pass-word"), "DB_PASS_WORD");
        assert_eq!(variable_name("9lives"), "_9LIVES");
        assert_eq!(variable_name("é"), "_");
    }

    proptest! {
        /// Whatever the text, a slug is one, is its own slug, and is safe in paths and patterns.
        #[test]
        fn the_slug_of_any_text_is_a_slug(text in "\\PC{0,60}|[ -~\t]{0,60}") {
            let made = slug(&text);
            prop_assert_eq!(slug(&made), made.clone());
            prop_assert!(made.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!made.starts_with('-') && !made.ends_with('-') && !made.contains("--"));
            prop_assert_eq!(made.parse::<Slug>().is_ok(), !made.is_empty());
            prop_assert_eq!(text.parse::<Slug>().is_ok(), !text.is_empty() && made == text);
        }

        /// Names that are taken are what their rule says, word by word.
        #[test]
        fn names_are_taken_by_their_rules(text in "[a-z0-9-]{0,70}|[A-Za-z0-9._-]{0,210}|\\PC{0,10}|[ -~\u{0}]{0,10}") {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let label = (1..=63).contains(&text.chars().count())
                && text.chars().all(inner)
                && !text.starts_with('-')
                && !text.ends_with('-');
            prop_assert_eq!(check_label(&text).is_ok(), label);
            if check_secret_key(&text).is_ok() {
                prop_assert!(!text.starts_with('.') && !text.contains('/') && !text.contains('\0') && text.len() <= 200);
                prop_assert!(variable_name(&text).bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
            }
            prop_assert_eq!(within(&text, 10).is_ok(), text.chars().count() <= 10);
            let free = !text.trim().is_empty() && text.chars().count() <= 10 && !text.chars().any(char::is_control);
            prop_assert_eq!(check_free_text(&text, 10).is_ok(), free);
        }
    }
}
