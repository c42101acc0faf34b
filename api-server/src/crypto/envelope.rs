//! The binary form of a sealed value.
//!
//! ```text
//! offset  bytes  content
//!      0      1  format, 1 = AES-256-GCM-SIV in both layers
//!      1      8  id of the master key whose KEK wraps the DEK
//!      9     12  nonce of the wrapped DEK
//!     21     48  DEK under KEK, with its tag
//!     69     12  nonce of the value
//!     81   16 +  value under DEK, with its tag
//! ```
//! The ciphertext is as long as the value, which an owner of the database can therefore see.

use std::fmt;

use super::MasterKeyId;

pub(super) const FORMAT: u8 = 1;
pub(super) const NONCE: usize = 12;
pub(super) const TAG: usize = 16;
pub(super) const DEK: usize = 32;
const KEY_ID_AT: usize = 1;
const DEK_NONCE_AT: usize = KEY_ID_AT + MasterKeyId::LENGTH;
const DEK_AT: usize = DEK_NONCE_AT + NONCE;
const NONCE_AT: usize = DEK_AT + DEK + TAG;
pub(super) const VALUE_AT: usize = NONCE_AT + NONCE;

/// A value that only the master key opens, and only where it belongs.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the sealed value is cut short")]
    TooShort,
    #[error("the sealed value has format {found}, which this version of the server does not know")]
    UnknownFormat { found: u8 },
}

impl Sealed {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The master key that is needed to open it.
    pub fn key_id(&self) -> MasterKeyId {
        MasterKeyId(self.part(KEY_ID_AT))
    }

    pub(super) fn dek_nonce(&self) -> [u8; NONCE] {
        self.part(DEK_NONCE_AT)
    }

    pub(super) fn wrapped_dek(&self) -> &[u8] {
        &self.0[DEK_AT..NONCE_AT]
    }

    pub(super) fn nonce(&self) -> [u8; NONCE] {
        self.part(NONCE_AT)
    }

    pub(super) fn ciphertext(&self) -> &[u8] {
        &self.0[VALUE_AT..]
    }

    /// The header of a new envelope, with room for `ciphertext` bytes behind it.
    pub(super) fn header(
        key: MasterKeyId,
        dek_nonce: &[u8; NONCE],
        wrapped_dek: &[u8],
        nonce: &[u8; NONCE],
        ciphertext: usize,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(VALUE_AT + ciphertext);
        out.push(FORMAT);
        out.extend_from_slice(&key.0);
        out.extend_from_slice(dek_nonce);
        out.extend_from_slice(wrapped_dek);
        out.extend_from_slice(nonce);
        out
    }

    /// The same ciphertext behind the header of another wrapping of its data key.
    pub(super) fn under(&self, key: MasterKeyId, dek_nonce: &[u8; NONCE], wrapped_dek: &[u8]) -> Self {
        let mut out = Self::header(key, dek_nonce, wrapped_dek, &self.nonce(), self.ciphertext().len());
        out.extend_from_slice(self.ciphertext());
        Self(out)
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..]
            .first_chunk()
            .expect("an envelope is never shorter than its header")
    }
}

impl TryFrom<Vec<u8>> for Sealed {
    type Error = EnvelopeError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        match bytes.first() {
            Some(&FORMAT) if bytes.len() >= VALUE_AT + TAG => Ok(Self(bytes)),
            None | Some(&FORMAT) => Err(EnvelopeError::TooShort),
            Some(&found) => Err(EnvelopeError::UnknownFormat { found }),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[sealed under {}]", self.key_id())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_envelope_shorter_than_header_and_tag_is_refused() {
        assert_eq!(Sealed::try_from(vec![]), Err(EnvelopeError::TooShort));
        assert_eq!(
            Sealed::try_from(vec![FORMAT; VALUE_AT + TAG - 1]),
            Err(EnvelopeError::TooShort)
        );
        assert!(Sealed::try_from(vec![FORMAT; VALUE_AT + TAG]).is_ok());
        assert_eq!(
            Sealed::try_from(vec![2; 200]),
            Err(EnvelopeError::UnknownFormat { found: 2 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), format in any::<bool>()) {
            if let Some(first) = bytes.first_mut().filter(|_| format) {
                *first = FORMAT;
            }
            if let Ok(sealed) = Sealed::try_from(bytes.clone()) {
                prop_assert_eq!(sealed.as_bytes(), &bytes[..]);
                let parts = [
                    &[FORMAT][..], &sealed.key_id().0, &sealed.dek_nonce(), sealed.wrapped_dek(), &sealed.nonce(), sealed.ciphertext(),
                ];
                prop_assert_eq!(parts.concat(), bytes);
            }
        }
    }
}
