//! API keys, and the pepper under which they are stored.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sealpod_core::SecretText;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::random;

/// How much of a key is kept in clear, so that people can tell keys apart.
pub const KEY_PREFIX_LENGTH: usize = 12;
const RANDOM_BYTES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyKind {
    /// `cr_sa_…`, for the organization plane.
    ServiceAccount,
    /// `grm_…`, for the consumer plane.
    Application,
}

impl ApiKeyKind {
    pub fn prefix(self) -> &'static str {
        match self {
            Self::ServiceAccount => "cr_sa_",
            Self::Application => "grm_",
        }
    }
}

/// A key as its owner holds it: a prefix and 40 lower-case hex characters (160 random bits).
#[derive(Clone)]
pub struct ApiKey {
    kind: ApiKeyKind,
    text: SecretText,
}

impl ApiKey {
    pub fn generate(kind: ApiKeyKind) -> Self {
        let text = format!(
            "{}{}",
            kind.prefix(),
            HEXLOWER.encode(random::<RANDOM_BYTES>().as_slice())
        );
        Self {
            kind,
            text: text.into(),
        }
    }

    /// `None` where the text cannot be a key, so that it need not be looked up.
    pub fn parse(text: &str) -> Option<Self> {
        [ApiKeyKind::ServiceAccount, ApiKeyKind::Application]
            .into_iter()
            .find_map(|kind| {
                let hex = text.strip_prefix(kind.prefix())?;
                let well_formed = hex.len() == 2 * RANDOM_BYTES
                    && hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
                well_formed.then(|| Self {
                    kind,
                    text: SecretText::new(text),
                })
            })
    }

    pub fn kind(&self) -> ApiKeyKind {
        self.kind
    }

    /// The first 12 characters.
    pub fn prefix(&self) -> &str {
        &self.text.expose()[..KEY_PREFIX_LENGTH]
    }

    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    pub fn into_text(self) -> SecretText {
        self.text
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.prefix())
    }
}

/// A key as it is stored and looked up: HMAC-SHA-256 under the pepper.
#[derive(Clone, Copy)]
pub struct KeyDigest(pub(crate) [u8; 32]);

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[digest]")
    }
}

/// What the store takes of a new key: nothing that the key could be made from.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub(crate) kind: ApiKeyKind,
    pub(crate) digest: KeyDigest,
    pub(crate) prefix: String,
}

impl NewKey {
    pub fn of(pepper: &Pepper, key: &ApiKey) -> Self {
        Self {
            kind: key.kind,
            digest: pepper.digest(key),
            prefix: key.prefix().to_owned(),
        }
    }
}

/// The server's own secret, without which a stolen table of digests says nothing about keys.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

impl Pepper {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    pub fn digest(&self, key: &ApiKey) -> KeyDigest {
        KeyDigest(self.0.clone().chain_update(key.expose()).finalize().into_bytes().into())
    }

    /// A keyed hash of other things (for an `ETag`, a fingerprint). `label` says of what; each part is preceded by its length,
    /// and the label's length begins with a zero byte, so that no result is ever the digest of a key.
    pub fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_prefix_and_forty_hex_characters() {
        for (kind, length) in [(ApiKeyKind::ServiceAccount, 46), (ApiKeyKind::Application, 44)] {
            let key = ApiKey::generate(kind);
            assert_eq!(key.expose().len(), length);
            assert_eq!(key.prefix().len(), KEY_PREFIX_LENGTH);
            let parsed = ApiKey::parse(key.expose()).unwrap();
            assert_eq!((parsed.kind(), parsed.expose()), (kind, key.expose()));
            assert!(!format!("{key:?}").contains(&key.expose()[KEY_PREFIX_LENGTH..]));
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_not_one() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        for text in [
            String::new(),
            hex.to_owned(),
            format!("grm_{}", &hex[1..]),
            format!("grm_{hex}0"),
            format!("GRM_{hex}"),
            format!("grm_{}", hex.to_uppercase()),
            format!("cr_sa_{} ", &hex[1..]),
            "grm_wrongkey".to_owned(),
            format!("grm_{}", "é".repeat(20)),
        ] {
            assert!(ApiKey::parse(&text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn digests_differ_by_key_and_by_pepper() {
        let (one, two) = (Pepper::new(&[1; 32]), Pepper::new(&[2; 32]));
        let (a, b) = (
            ApiKey::generate(ApiKeyKind::Application),
            ApiKey::generate(ApiKeyKind::Application),
        );
        assert_eq!(one.digest(&a), one.digest(&a));
        assert_ne!(one.digest(&a), one.digest(&b));
        assert_ne!(one.digest(&a), two.digest(&a));
    }

    #[test]
    fn a_keyed_hash_depends_on_where_parts_end() {
        let pepper = Pepper::new(&[1; 32]);
        assert_ne!(pepper.mac("etag", &[b"ab", b"c"]), pepper.mac("etag", &[b"a", b"bc"]));
        assert_ne!(pepper.mac("etag", &[b"a"]), pepper.mac("other", &[b"a"]));
    }
}
