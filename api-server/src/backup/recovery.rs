//! Offline keys: what a backup carries for who has lost the master key, in the form of age (<https://age-encryption.org/v1>).

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Damage, Error};
use crate::crypto::{ArchiveKey, Keyring};

/// Longest content: sixteen master keys are a kilobyte.
const MAX: u64 = 16 * 1024;

/// Who can open a backup offline: `age1…`, which is no secret.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library's message quotes what it read.
        text.parse()
            .map(Self)
            .map_err(|_| "must be a public key of age, `age1…`, as `age-keygen` prints it".to_owned())
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The private half, as it stands in a file of `age-keygen`.
pub struct Identity(age::x25519::Identity);

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed = line.unwrap_or_default().parse().map(Self);
        parsed.map_err(|_| "must be a private key of age, `AGE-SECRET-KEY-1…`".to_owned())
    }
}

/// The archive's key and the master keys, for these recipients.
pub(super) fn seal(recipients: &[Recipient], id: Uuid, key: &ArchiveKey, keyring: &Keyring) -> Result<Vec<u8>, Error> {
    let failed = |error: &dyn fmt::Display| Error::Recovery(error.to_string());
    let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed)?;
    let hex = Zeroizing::new(HEXLOWER.encode(key.0.as_slice()));
    writer.write_all(format!("sealpod/recovery/1\n{id}\n").as_bytes())?;
    writer.write_all(hex.as_bytes())?;
    writer.write_all(b"\n")?;
    writer.write_all(keyring.export().as_bytes())?;
    writer.finish()?;
    Ok(sealed)
}

pub(super) fn open(identity: &Identity, id: Uuid, sealed: &[u8]) -> Result<(ArchiveKey, Keyring), Error> {
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| Damage::Header)?;
    let reader = decryptor.decrypt(std::iter::once(&identity.0 as &dyn age::Identity));
    let mut text = Zeroizing::new(String::with_capacity(2_048));
    let reader = reader.map_err(|_| Error::ForeignIdentity)?;
    reader.take(MAX).read_to_string(&mut text).map_err(|_| Damage::Header)?;
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().ok_or(Damage::Header);
    let (form, of, key, master) = (line()?, line()?, line()?, line()?);
    if form != "sealpod/recovery/1" || of != id.to_string() {
        return Err(Damage::Header.into());
    }
    let key = Zeroizing::new(HEXLOWER.decode(key.as_bytes()).map_err(|_| Damage::Header)?);
    let key = ArchiveKey::from_bytes(&key).ok_or(Damage::Header)?;
    Ok((key, Keyring::parse(master).map_err(|_| Damage::Header)?))
}
