//! The master keys, and sealing under them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hkdf::Hkdf;
use sealpod_core::SecretText;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::envelope::{DEK, EnvelopeError, NONCE, Sealed, TAG, VALUE_AT};
use super::{Aad, random};

const MASTER_KEY: usize = 32;
/// Most lines of a key file: a rotation needs two.
const MAX_KEYS: usize = 16;
/// For how long a key that was taken out opens what somebody had looked up before that: longer than any request takes.
const LEAVING: Duration = Duration::from_mins(1);
/// What HKDF binds each derived key to.
const KEK_INFO: &[u8] = b"sealpod/1/key-encryption-key";
const BACKUP_INFO: &[u8] = b"sealpod/1/backup-key";
const KEY_ID_INFO: &[u8] = b"sealpod/1/key-id";
/// What tells the two layers of an envelope apart.
const DEK_LAYER: &[u8] = b"dek";
const VALUE_LAYER: &[u8] = b"value";

/// Keys that anybody can read somewhere, beside all zeros and all `f`: a server that took one would seal nothing. Any
/// key that our own documents print belongs here.
pub const PUBLISHED_KEYS: [&str; 1] = ["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"];

/// A new master key: 64 hex characters.
pub fn generate_master_key() -> SecretText {
    SecretText::new(HEXLOWER.encode(random::<MASTER_KEY>().as_slice()))
}

/// Names a master key without telling anything about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId(pub(super) [u8; Self::LENGTH]);

impl MasterKeyId {
    pub(super) const LENGTH: usize = 8;

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with the master keys. Names lines, never quotes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no master key; make one with `sealpod-api-server key generate`")]
    Missing,
    #[error("line {line} of the master keys must be 64 hex characters (32 bytes), and has {found}")]
    WrongLength { line: usize, found: usize },
    #[error("line {line} of the master keys holds a character that is no hex digit (0-9, a-f)")]
    NotHex { line: usize },
    #[error(
        "line {line} of the master keys is a published default, which protects nothing; make one with `sealpod-api-server key generate`"
    )]
    Published { line: usize },
    #[error("line {line} of the master keys repeats line {first}; keep one of them")]
    Duplicate { line: usize, first: usize },
    #[error("there are more than 16 master keys; remove those that the data does not need any more")]
    TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the value is sealed under master key {needed}, which is not among the keys that the server was given")]
    UnknownKey { needed: MasterKeyId },
    #[error("the sealed value does not open: it was changed, or it was moved from where it belongs")]
    Refused,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

pub(super) struct Key {
    pub(super) id: MasterKeyId,
    kek: Aes256GcmSiv,
    /// Wraps the keys of archives.
    pub(super) backup: Aes256GcmSiv,
    /// The key itself, for the offline copy that a backup can carry.
    master: Zeroizing<[u8; MASTER_KEY]>,
}

pub(super) type Keys = Arc<Vec<Arc<Key>>>;

/// The master keys; the first one seals, all of them open. Clones are the same keyring: what [replaces](Self::replace)
/// the keys of one replaces those of all.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

struct Ring {
    keys: RwLock<Keys>,
    leaving: Mutex<Vec<Leaving>>,
}

/// A key that was taken out, and when.
struct Leaving {
    key: Arc<Key>,
    since: Instant,
}

impl Keyring {
    /// Reads one key a line, the current one first; blank lines do not count.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut seen: Vec<(usize, Zeroizing<Vec<u8>>)> = Vec::new();
        for (line, key) in text.lines().enumerate() {
            let (line, key) = (line + 1, key.trim());
            if key.is_empty() {
                continue;
            }
            let key = parse_key(line, key)?;
            if let Some((first, _)) = seen.iter().find(|(_, other)| *other == key) {
                return Err(KeyringError::Duplicate { line, first: *first });
            }
            seen.push((line, key));
        }
        if seen.is_empty() {
            return Err(KeyringError::Missing);
        }
        if seen.len() > MAX_KEYS {
            return Err(KeyringError::TooMany);
        }
        let keys = seen.iter().map(|(_, key)| Arc::new(Key::derive(key))).collect();
        Ok(Self(Arc::new(Ring {
            keys: RwLock::new(Arc::new(keys)),
            leaving: Mutex::default(),
        })))
    }

    /// Takes the keys of another keyring in place of these. For a minute, those that are not among them open what somebody
    /// looked up before; see [`forget`](Self::forget).
    pub fn replace(&self, other: &Self) {
        let (old, new, since) = (self.keys(), other.keys(), Instant::now());
        let is_in = |keys: &Keys, key: &Key| keys.iter().any(|other| other.id == key.id);
        let gone = old.iter().filter(|key| !is_in(&new, key));
        let gone = gone.map(|key| Leaving {
            key: Arc::clone(key),
            since,
        });
        let mut leaving = self.leaving();
        leaving.retain(|left| !is_in(&old, &left.key));
        leaving.extend(gone);
        drop(leaving);
        // Behind that, and what comes back stays there as well, so that at no time a key is in neither.
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// Forgets the keys that were taken out more than a minute before `now`. Somebody has to call this now and then.
    pub fn forget(&self, now: Instant) {
        self.leaving()
            .retain(|left| now.saturating_duration_since(left.since) < LEAVING);
    }

    /// The keys as they are now: what replaces these later does not change it.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(Ring {
            keys: RwLock::new(self.keys()),
            leaving: Mutex::default(),
        }))
    }

    /// Makes one of these keys the first; false where it is not among them.
    pub fn lead_with(&self, id: MasterKeyId) -> bool {
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = keys.iter().position(|key| key.id == id) else {
            return false;
        };
        Arc::make_mut(&mut keys)[..=at].rotate_right(1);
        true
    }

    /// The key that seals.
    pub fn current(&self) -> MasterKeyId {
        first(&self.keys()).id
    }

    /// All keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = MasterKeyId> {
        let keys = self.keys();
        (0..keys.len()).map(move |at| keys[at].id)
    }

    /// Seals under a fresh data key, bound to where the value belongs.
    pub fn seal(&self, aad: &Aad, value: &[u8]) -> Sealed {
        let keys = self.keys();
        let key = first(&keys);
        let dek = random::<DEK>();
        let (dek_nonce, nonce) = (random::<NONCE>(), random::<NONCE>());

        let mut wrapped = Zeroizing::new(Vec::with_capacity(DEK + TAG));
        wrapped.extend_from_slice(dek.as_slice());
        encrypt(&key.kek, &dek_nonce, &key.dek_aad(aad), &mut wrapped);

        // The value is enciphered where it comes to lie, so that no other copy of it is made.
        let mut envelope = Sealed::header(key.id, &dek_nonce, &wrapped, &nonce, value.len() + TAG);
        envelope.extend_from_slice(value);
        let tag = cipher(&dek)
            .encrypt_inout_detached(
                &Nonce::from(*nonce),
                &aad.for_layer(&[VALUE_LAYER]),
                (&mut envelope[VALUE_AT..]).into(),
            )
            .expect("a value is far below the cipher's limit of 64 GiB");
        envelope.extend_from_slice(&tag);
        Sealed::try_from(envelope).expect("the header was just written")
    }

    /// Opens what was sealed for the same place. The key is chosen by its id and never by trial: the cipher does not
    /// commit to its key.
    pub fn open(&self, aad: &Aad, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let dek = self.unwrap(aad, sealed)?;
        let mut value = Zeroizing::new(sealed.ciphertext().to_vec());
        decrypt(
            &cipher(&dek),
            &sealed.nonce(),
            &aad.for_layer(&[VALUE_LAYER]),
            &mut value,
        )?;
        Ok(value)
    }

    /// The same value with its data key wrapped under the current master key. The value itself is not opened.
    pub fn rewrap(&self, aad: &Aad, sealed: &Sealed) -> Result<Sealed, OpenError> {
        let dek = self.unwrap(aad, sealed)?;
        let keys = self.keys();
        let (key, nonce) = (first(&keys), random::<NONCE>());
        let mut wrapped = Zeroizing::new(Vec::with_capacity(DEK + TAG));
        wrapped.extend_from_slice(dek.as_slice());
        encrypt(&key.kek, &nonce, &key.dek_aad(aad), &mut wrapped);
        Ok(sealed.under(key.id, &nonce, &wrapped))
    }

    fn unwrap(&self, aad: &Aad, sealed: &Sealed) -> Result<Zeroizing<[u8; DEK]>, OpenError> {
        let needed = sealed.key_id();
        let key = self.that_opens(needed).ok_or(OpenError::UnknownKey { needed })?;
        let mut dek = Zeroizing::new(sealed.wrapped_dek().to_vec());
        decrypt(&key.kek, &sealed.dek_nonce(), &key.dek_aad(aad), &mut dek)?;
        let dek = <[u8; DEK]>::try_from(dek.as_slice()).map_err(|_| OpenError::Refused)?;
        Ok(Zeroizing::new(dek))
    }

    /// The keys as a key file has them: all that anybody needs to open everything.
    pub(crate) fn export(&self) -> Zeroizing<String> {
        let keys = self.keys();
        let mut text = Zeroizing::new(String::with_capacity(keys.len() * (2 * MASTER_KEY + 1)));
        for key in keys.iter() {
            let mut hex = Zeroizing::new([0; 2 * MASTER_KEY]);
            HEXLOWER.encode_mut(key.master.as_slice(), hex.as_mut_slice());
            text.push_str(std::str::from_utf8(hex.as_slice()).expect("hex is ASCII"));
            text.push('\n');
        }
        text
    }

    pub(super) fn keys(&self) -> Keys {
        // Nothing that runs under this lock can panic.
        Arc::clone(&self.0.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn that_opens(&self, id: MasterKeyId) -> Option<Arc<Key>> {
        let of = |key: &&Arc<Key>| key.id == id;
        if let Some(key) = self.keys().iter().find(of) {
            return Some(Arc::clone(key));
        }
        let leaving = self.leaving();
        leaving.iter().map(|left| &left.key).find(of).map(Arc::clone)
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Leaving>> {
        self.0.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first(keys: &Keys) -> &Key {
    keys.first().expect("a keyring is never empty")
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl Key {
    fn derive(master: &[u8]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, master);
        let (mut kek, mut backup) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        let mut id = [0; MasterKeyId::LENGTH];
        hkdf.expand(KEK_INFO, kek.as_mut_slice())
            .and_then(|()| hkdf.expand(BACKUP_INFO, backup.as_mut_slice()))
            .and_then(|()| hkdf.expand(KEY_ID_INFO, &mut id))
            .expect("all lengths are far below HKDF's limit");
        let mut kept = Zeroizing::new([0; MASTER_KEY]);
        kept.copy_from_slice(master);
        Self {
            id: MasterKeyId(id),
            kek: cipher(&kek),
            backup: cipher(&backup),
            master: kept,
        }
    }

    /// The wrapping also binds the key's id, so that no envelope can be relabelled.
    fn dek_aad(&self, aad: &Aad) -> Vec<u8> {
        aad.for_layer(&[DEK_LAYER, &self.id.0])
    }
}

fn parse_key(line: usize, text: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let found = text.chars().count();
    if found != 2 * MASTER_KEY {
        return Err(KeyringError::WrongLength { line, found });
    }
    let key = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let key = Zeroizing::new(key.map_err(|_| KeyringError::NotHex { line })?);
    let published = |hex: &str| HEXLOWER.decode(hex.as_bytes()).is_ok_and(|bytes| bytes == *key);
    // A repeated byte covers all zeros and all `f`.
    if key.iter().all(|byte| *byte == key[0]) || PUBLISHED_KEYS.iter().any(|hex| published(hex)) {
        return Err(KeyringError::Published { line });
    }
    Ok(key)
}

fn cipher(key: &[u8; 32]) -> Aes256GcmSiv {
    let mut key = aes_gcm_siv::Key::<Aes256GcmSiv>::from(*key);
    let cipher = Aes256GcmSiv::new(&key);
    key.as_mut_slice().zeroize();
    cipher
}

fn encrypt(cipher: &Aes256GcmSiv, nonce: &[u8; NONCE], aad: &[u8], buffer: &mut Vec<u8>) {
    cipher
        .encrypt_in_place(&Nonce::from(*nonce), aad, buffer)
        .expect("a data key is far below the cipher's limit of 64 GiB");
}

fn decrypt(cipher: &Aes256GcmSiv, nonce: &[u8; NONCE], aad: &[u8], buffer: &mut Vec<u8>) -> Result<(), OpenError> {
    cipher
        .decrypt_in_place(&Nonce::from(*nonce), aad, buffer)
        .map_err(|_| OpenError::Refused)
}

#[cfg(test)]
mod tests;
