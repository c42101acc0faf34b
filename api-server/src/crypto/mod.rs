//! Keys, sealed values and credentials.
//!
//! ```text
//! master key --HKDF--> KEK --wraps--> DEK (one a value) --seals--> value
//! master key --HKDF--> backup key --wraps--> key of an archive
//! pepper, audit key: random, made once, sealed under the KEK like a value
//! ```
//! A rotation of the master key therefore leaves every credential and the audit chain as they are.

mod aad;
mod archive;
mod credential;
mod envelope;
mod keyring;
mod session;

pub use aad::Aad;
pub use archive::{ArchiveKey, WrappedArchiveKey};
pub use credential::{ApiKey, ApiKeyKind, KEY_PREFIX_LENGTH, KeyDigest, NewKey, Pepper};
pub use envelope::{EnvelopeError, Sealed};
pub use keyring::{Keyring, KeyringError, MasterKeyId, OpenError, PUBLISHED_KEYS, generate_master_key};
pub use session::SessionToken;

use zeroize::Zeroizing;

/// Bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).expect("the kernel's generator is seeded long before this process starts");
    bytes
}
