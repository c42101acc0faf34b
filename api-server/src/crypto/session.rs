//! Tokens of sessions.

use std::fmt;

use data_encoding::HEXLOWER;
use sealpod_core::SecretText;

use super::{KeyDigest, Pepper, random};

const PREFIX: &str = "cr_session_";
const RANDOM_BYTES: usize = 32;

/// A session's token as its owner holds it: a prefix, by which scanners find it where it should not be, and 64
/// lower-case hex characters (256 random bits).
#[derive(Clone)]
pub struct SessionToken(SecretText);

impl SessionToken {
    pub fn generate() -> Self {
        let random = random::<RANDOM_BYTES>();
        Self(format!("{PREFIX}{}", HEXLOWER.encode(random.as_slice())).into())
    }

    /// `None` where the text cannot be a token, so that it need not be looked up.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(PREFIX)?;
        let well_formed =
            hex.len() == 2 * RANDOM_BYTES && hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        well_formed.then(|| Self(SecretText::new(text)))
    }

    /// What is stored and looked up.
    pub fn digest(&self, pepper: &Pepper) -> KeyDigest {
        KeyDigest(pepper.mac("session/1", &[self.0.expose().as_bytes()]))
    }

    pub fn into_text(self) -> SecretText {
        self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_has_one_digest() {
        let pepper = Pepper::new(&[1; 32]);
        let token = SessionToken::generate();
        let text = token.clone().into_text();
        let read = SessionToken::parse(text.expose()).unwrap();
        assert_eq!(read.digest(&pepper), token.digest(&pepper));
        assert_ne!(SessionToken::generate().digest(&pepper), token.digest(&pepper));
        assert_eq!(format!("{token:?}"), "[redacted]");
    }

    #[test]
    fn what_cannot_be_a_token_is_not_one() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(SessionToken::parse(&format!("cr_session_{hex}")).is_some());
        for text in [
            String::new(),
            hex.clone(),
            format!("cr_session_{hex}0"),
            format!("cr_session_{}", &hex[1..]),
            format!("cr_session_{}", hex.to_uppercase()),
            format!("CR_SESSION_{hex}"),
            format!("cr_session_{} ", &hex[1..]),
        ] {
            assert!(SessionToken::parse(&text).is_none(), "{text:?}");
        }
    }
}
