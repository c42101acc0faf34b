//! The form of an archive.
//!
//! ```text
//! SEALPOD-ARCHIVE\n                what it is
//! length (4 bytes), header         JSON: the id, and the archive's key, wrapped
//! chunk, chunk, … last chunk       64 KiB each and its tag: STREAM over AES-256-GCM-SIV
//! ```
//! The associated data of every chunk is the hash of all that stands before the chunks, so that no header fits another
//! body; STREAM numbers the chunks and marks the last one, so that none can be left out, moved or added unseen.

use std::io::{self, Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32};
use aes_gcm_siv::Aes256GcmSiv;
use data_encoding::{BASE64, HEXLOWER};
use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::recovery::{Identity, Recipient};
use super::{Damage, Error};
use crate::crypto::{ArchiveKey, Keyring, MasterKeyId, OpenError, WrappedArchiveKey};

const MAGIC: &[u8] = b"SEALPOD-ARCHIVE\n";
/// This form; a later one gets another number.
const FORMAT: u32 = 1;
/// Longest header: a dozen recipients take some kilobytes.
const MAX_HEADER: u32 = 64 * 1024;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// What anybody can read of an archive. It is believed once the first chunk has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    pub id: Uuid,
    /// What is in it: `backup`, or `audit`.
    pub content: String,
    pub created_at: Time,
    /// Version of the server that made it.
    pub server: String,
    /// Version of the database's schema.
    pub schema: usize,
    /// The epoch of the database that old entries of the audit log are of: whoever has another one did not write this. Not in
    /// backups, whose manifest has it, nor in what earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Uuid>,
    /// The master key whose backup key wraps `key`.
    pub key_id: String,
    key: String,
    /// The key and the master keys for offline recipients, as an age file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovery: Option<String>,
}

impl Header {
    pub fn new(id: Uuid, content: &str, schema: usize) -> Self {
        Self {
            format: FORMAT,
            id,
            content: content.to_owned(),
            created_at: Time::now(),
            server: env!("CARGO_PKG_VERSION").to_owned(),
            schema,
            epoch: None,
            key_id: String::new(),
            key: String::new(),
            recovery: None,
        }
    }

    fn wrapped(&self) -> Option<WrappedArchiveKey> {
        let id = HEXLOWER.decode(self.key_id.as_bytes()).ok()?;
        Some(WrappedArchiveKey {
            under: MasterKeyId::from_bytes(&id)?,
            bytes: HEXLOWER.decode(self.key.as_bytes()).ok()?,
        })
    }
}

type Nonce = aead_stream::Nonce<Aes256GcmSiv, aead_stream::StreamBE32<Aes256GcmSiv>>;

/// The key is the archive's own and seals one stream, so its nonce may be anything.
fn nonce() -> Nonce {
    Nonce::default()
}

fn cipher_key(key: &ArchiveKey) -> aead_stream::Key<Aes256GcmSiv> {
    (*key.0).into()
}

/// Seals what is written to it. What is not [finished](Self::finish) does not open.
pub struct Sealer<W> {
    inner: W,
    under: MasterKeyId,
    stream: Option<EncryptorBE32<Aes256GcmSiv>>,
    aad: [u8; 32],
    chunk: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header: the archive opens for the keyring and for the recipients.
    pub fn new(mut inner: W, mut header: Header, keyring: &Keyring, recipients: &[Recipient]) -> Result<Self, Error> {
        let key = ArchiveKey::generate();
        let wrapped = keyring.wrap_archive_key(header.id, &key);
        header.key_id = wrapped.under.to_string();
        header.key = HEXLOWER.encode(&wrapped.bytes);
        if !recipients.is_empty() {
            let recovery = super::recovery::seal(recipients, header.id, &key, keyring)?;
            header.recovery = Some(BASE64.encode(&recovery));
        }
        let json = serde_json::to_vec(&header).expect("a header has text and numbers only");
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_HEADER);
        let length = length.ok_or(Error::TooManyRecipients)?;
        let head = [MAGIC, &length.to_be_bytes(), &json].concat();
        inner.write_all(&head)?;
        Ok(Self {
            inner,
            under: wrapped.under,
            stream: Some(EncryptorBE32::new(&cipher_key(&key), &nonce())),
            aad: Sha256::digest(&head).into(),
            chunk: Vec::with_capacity(CHUNK + TAG),
        })
    }

    /// The master key that opens it.
    pub fn sealed_under(&self) -> MasterKeyId {
        self.under
    }

    /// Writes the last chunk; answers what it wrote to.
    pub fn finish(mut self) -> io::Result<W> {
        let stream = self.stream.take().expect("only this takes the stream");
        stream
            .encrypt_last_in_place(&self.aad, &mut self.chunk)
            .map_err(|_| io::Error::other("the archive is too long to be sealed"))?;
        self.inner.write_all(&self.chunk)?;
        Ok(self.inner)
    }

    fn seal_chunk(&mut self) -> io::Result<()> {
        let stream = self.stream.as_mut().expect("it is there until the end");
        stream
            .encrypt_next_in_place(&self.aad, &mut self.chunk)
            .map_err(|_| io::Error::other("the archive is too long to be sealed"))?;
        self.inner.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: it may be the last one.
        if self.chunk.len() == CHUNK {
            self.seal_chunk()?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens an archive; what is read from it is what was written, or an error that names what is wrong.
pub struct Opener<R> {
    inner: R,
    pub header: Header,
    key: ArchiveKey,
    /// Gone behind the last chunk.
    stream: Option<DecryptorBE32<Aes256GcmSiv>>,
    aad: [u8; 32],
    /// How many chunks were opened.
    opened: u32,
    /// As it was read, to be opened once it is known whether another one follows.
    next: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
}

/// The keys that an archive opens with.
pub enum Keys<'a> {
    Keyring(&'a Keyring),
    /// Offline; what comes out beside the archive's key are the master keys.
    Identity(&'a Identity),
}

impl<R: Read> Opener<R> {
    /// Reads the header. Answers, with an identity, the master keys that the archive carries for it.
    pub fn new(mut inner: R, keys: &Keys<'_>) -> Result<(Self, Option<Keyring>), Error> {
        let (header, head) = read_header(&mut inner)?;
        let (key, carried) = match keys {
            Keys::Keyring(keyring) => (open_key(&header, keyring)?, None),
            Keys::Identity(identity) => {
                let recovery = header.recovery.as_deref().ok_or(Error::NoRecipients)?;
                let recovery = BASE64.decode(recovery.as_bytes()).map_err(|_| Damage::Header)?;
                let (key, keyring) = super::recovery::open(identity, header.id, &recovery)?;
                (key, Some(keyring))
            }
        };
        let mut opener = Self {
            inner,
            header,
            stream: Some(DecryptorBE32::new(&cipher_key(&key), &nonce())),
            key,
            aad: Sha256::digest(&head).into(),
            opened: 0,
            next: Vec::with_capacity(CHUNK + TAG),
            chunk: Vec::with_capacity(CHUNK + TAG),
            at: 0,
        };
        opener.next = opener.read_chunk()?;
        Ok((opener, carried))
    }

    fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(CHUNK + TAG);
        (&mut self.inner).take((CHUNK + TAG) as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }

    fn open_chunk(&mut self) -> io::Result<()> {
        let following = self.read_chunk()?;
        let sealed = std::mem::replace(&mut self.next, following);
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        let is_last = self.next.is_empty();
        self.chunk.clone_from(&sealed);
        let opened = if is_last {
            stream.decrypt_last_in_place(&self.aad, &mut self.chunk)
        } else {
            let opened = stream.decrypt_next_in_place(&self.aad, &mut self.chunk);
            self.stream = Some(stream);
            opened
        };
        if opened.is_err() {
            self.chunk.clear();
            self.stream = None;
            return Err(io::Error::other(Error::from(self.why(&sealed, is_last))));
        }
        (self.at, self.opened) = (0, self.opened.saturating_add(1));
        Ok(())
    }

    /// What is wrong with a chunk that did not open: whether it would as the other kind says where the archive ends.
    fn why(&self, sealed: &[u8], is_last: bool) -> Damage {
        use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
        let stream = StreamBE32::<Aes256GcmSiv>::new(&cipher_key(&self.key), &nonce());
        let mut chunk = sealed.to_vec();
        let other = stream.decrypt_in_place(self.opened, !is_last, &self.aad, &mut chunk);
        match (other, is_last) {
            (Ok(()), true) => Damage::CutShort,
            (Ok(()), false) => Damage::Continued,
            (Err(_), true) if sealed.len() < TAG => Damage::CutShort,
            (Err(_), _) => Damage::Changed { chunk: self.opened },
        }
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.stream.is_none() {
                return Ok(0);
            }
            self.open_chunk()?;
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn open_key(header: &Header, keyring: &Keyring) -> Result<ArchiveKey, Error> {
    let wrapped = header.wrapped().ok_or(Damage::Header)?;
    keyring
        .open_archive_key(header.id, &wrapped)
        .map_err(|error| match error {
            OpenError::UnknownKey { needed } => Error::ForeignKey {
                needed,
                given: keyring.ids().collect(),
            },
            OpenError::Refused | OpenError::Envelope(_) => Damage::Header.into(),
        })
}

/// What a file is, by its beginning.
#[derive(Debug)]
pub(super) enum Looked {
    /// An archive, as it says of itself.
    Header(Box<Header>),
    /// One in a form that another version of the server knows.
    OtherForm,
    /// None, or one that nobody can open: what opens an archive stands there.
    None,
}

/// An error where that could not be read.
pub(super) fn look(input: &mut impl Read) -> Result<Looked, Error> {
    match header(input) {
        Ok(header) => Ok(Looked::Header(Box::new(header))),
        Err(Error::UnknownFormat { .. }) => Ok(Looked::OtherForm),
        Err(Error::NotAnArchive | Error::Damaged(_)) => Ok(Looked::None),
        Err(error) => Err(error),
    }
}

/// What it says of itself.
pub(super) fn header(input: &mut impl Read) -> Result<Header, Error> {
    Ok(read_header(input)?.0)
}

/// The header, and all bytes up to its end.
fn read_header(input: &mut impl Read) -> Result<(Header, Vec<u8>), Error> {
    let mut head = vec![0; MAGIC.len() + 4];
    let read = read_up_to(input, &mut head)?;
    if head[..read.min(MAGIC.len())] != MAGIC[..read.min(MAGIC.len())] || read == 0 {
        return Err(Error::NotAnArchive);
    }
    let length = head[..read].last_chunk().filter(|_| read == head.len());
    let length = u32::from_be_bytes(*length.ok_or(Damage::CutShort)?);
    if length > MAX_HEADER {
        return Err(Damage::Header.into());
    }
    let begin = head.len();
    head.resize(begin + usize::try_from(length).expect("some kilobytes"), 0);
    if read_up_to(input, &mut head[begin..])? < head.len() - begin {
        return Err(Damage::CutShort.into());
    }
    let unknown = || Error::from(Damage::Header);
    let json: serde_json::Value = serde_json::from_slice(&head[begin..]).map_err(|_| unknown())?;
    match json["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(found) => return Err(Error::UnknownFormat { found }),
        None => return Err(unknown()),
    }
    let header = serde_json::from_value(json).map_err(|_| unknown())?;
    Ok((header, head))
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match input.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
