//! Keys of archives: backups and exported segments of the audit log. Each archive has a random key of its own, wrapped under
//! the backup key of a master key.

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Keyring, MasterKeyId, OpenError, random};

const NONCE: usize = 12;
const KEY: usize = 32;
const TAG: usize = 16;

/// The key of one archive.
#[derive(Clone)]
pub struct ArchiveKey(pub(crate) Zeroizing<[u8; KEY]>);

impl ArchiveKey {
    pub fn generate() -> Self {
        Self(random())
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }
}

/// An archive's key as the archive carries it: nonce, key, tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedArchiveKey {
    pub under: MasterKeyId,
    pub bytes: Vec<u8>,
}

impl Keyring {
    /// Wraps the key of the archive of this id under the current master key's backup key.
    pub fn wrap_archive_key(&self, archive: Uuid, key: &ArchiveKey) -> WrappedArchiveKey {
        let (under, cipher) = self.backup_cipher(None).expect("a keyring has a current key");
        let nonce = random::<NONCE>();
        let mut wrapped = Zeroizing::new(Vec::with_capacity(KEY + TAG));
        wrapped.extend_from_slice(key.0.as_slice());
        cipher
            .encrypt_in_place(&Nonce::from(*nonce), &aad(archive, under), &mut *wrapped)
            .expect("a key is far below the cipher's limit");
        WrappedArchiveKey {
            under,
            bytes: [nonce.as_slice(), &wrapped].concat(),
        }
    }

    pub fn open_archive_key(&self, archive: Uuid, wrapped: &WrappedArchiveKey) -> Result<ArchiveKey, OpenError> {
        let needed = wrapped.under;
        let (_, cipher) = self
            .backup_cipher(Some(needed))
            .ok_or(OpenError::UnknownKey { needed })?;
        let (nonce, sealed) = wrapped.bytes.split_first_chunk::<NONCE>().ok_or(OpenError::Refused)?;
        let mut key = Zeroizing::new(sealed.to_vec());
        cipher
            .decrypt_in_place(&Nonce::from(*nonce), &aad(archive, needed), &mut *key)
            .map_err(|_| OpenError::Refused)?;
        ArchiveKey::from_bytes(&key).ok_or(OpenError::Refused)
    }

    fn backup_cipher(&self, id: Option<MasterKeyId>) -> Option<(MasterKeyId, Aes256GcmSiv)> {
        let keys = self.keys();
        let key = keys.iter().find(|key| id.is_none_or(|id| key.id == id))?;
        Some((key.id, key.backup.clone()))
    }
}

fn aad(archive: Uuid, key: MasterKeyId) -> Vec<u8> {
    [b"sealpod/archive-key/1".as_slice(), archive.as_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archives_key_opens_for_its_archive_and_master_key_only() {
        let ring = |key: &str| Keyring::parse(key).unwrap();
        let [one, two] = [(); 2].map(|()| super::super::generate_master_key());
        let (id, key) = (Uuid::now_v7(), ArchiveKey::generate());
        let wrapped = ring(one.expose()).wrap_archive_key(id, &key);
        let both = ring(&format!("{}\n{}", two.expose(), one.expose()));
        assert_eq!(both.open_archive_key(id, &wrapped).unwrap().0, key.0);
        assert_eq!(
            both.open_archive_key(Uuid::now_v7(), &wrapped).err(),
            Some(OpenError::Refused)
        );
        let needed = wrapped.under;
        assert_eq!(
            ring(two.expose()).open_archive_key(id, &wrapped).err(),
            Some(OpenError::UnknownKey { needed })
        );
        let relabelled = WrappedArchiveKey {
            under: both.current(),
            ..wrapped.clone()
        };
        assert_eq!(both.open_archive_key(id, &relabelled).err(), Some(OpenError::Refused));
        for at in 0..wrapped.bytes.len() {
            let mut changed = wrapped.clone();
            changed.bytes[at] ^= 1;
            assert_eq!(both.open_archive_key(id, &changed).err(), Some(OpenError::Refused));
        }
    }

    #[test]
    fn an_exported_keyring_reads_back() {
        let [one, two] = [(); 2].map(|()| super::super::generate_master_key());
        let ring = Keyring::parse(&format!("{}\n{}", one.expose(), two.expose())).unwrap();
        let read = Keyring::parse(&ring.export()).unwrap();
        assert!(read.ids().eq(ring.ids()));
    }
}
