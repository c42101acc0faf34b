//! From a database to an archive that was opened again.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sealpod_core::wire::backups::{Backup, Trigger};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::archive::{Header, Sealer};
use super::content::{self, CONTENT, Manifest};
use super::known::{ARCHIVE, KNOWN, Known, give_up, mark, named, unmark};
use super::restore::{Asked, Source, verify};
use super::scratch::{Scratch, folder_of};
use super::storage::{Download, Storage};
use super::{Error, Recipient};
use crate::crypto::Keyring;
use crate::store;

/// An archive in the storage.
pub struct Stored {
    pub storage: Storage,
    pub name: String,
}

impl Source for Stored {
    type Reader = Download;

    fn open(&self) -> Result<Download, Error> {
        Ok(self.storage.open(&self.name)?)
    }
}

/// Makes a backup of the database at this path, which others may use meanwhile, and opens it again. Blocks.
pub fn write_archive(
    id: Uuid,
    storage: &Storage,
    from: (&Path, &Keyring),
    recipients: &[Recipient],
    trigger: Trigger,
) -> Result<Backup, Error> {
    write_archive_until(&CancellationToken::new(), id, storage, from, recipients, trigger)
}

/// As [`write_archive`]. Where the `end` comes before all of it is in the storage, there is none.
pub(super) fn write_archive_until(
    end: &CancellationToken,
    id: Uuid,
    storage: &Storage,
    (database, keyring): (&Path, &Keyring),
    recipients: &[Recipient],
    trigger: Trigger,
) -> Result<Backup, Error> {
    // 1. Its place, by which other processes see that there will be one, before the copy that may need an old key.
    store::require_room_for_copy(database)?;
    let mut header = Header::new(id, CONTENT, store::known_schema());
    let (created_at, filename) = (header.created_at, named(header.created_at, "sealpod", id, ARCHIVE));
    let inner = storage.create(&filename)?;
    let sink = Counted::new(Until { end, inner });
    // 2. A copy as of one instant. The keys are those of then to the end: one key more or less on the way would make an archive
    //    that is said to need another one than it does.
    let scratch = Scratch::new(folder_of(database))?;
    store::copy_until(database, &scratch.path, end)?;
    let keyring = &keyring.snapshot();
    let facts = store::inspect(&scratch.path, keyring)?;
    // 3. Compressed and sealed on its way.
    header.schema = facts.schema;
    let manifest = Manifest::of(&header, &scratch.path, &facts)?;
    let sealer = Sealer::new(sink, header, keyring, recipients)?;
    let key_id = sealer.sealed_under().to_string();
    let (Until { inner, .. }, size_bytes, sha256) = content::pack(&manifest, &scratch.path, sealer)?.into_parts();
    mark(storage, &filename)?;
    // It may have got its name even so.
    inner.finish().inspect_err(|_| give_up(storage, &filename))?;
    drop(scratch);
    let needed: BTreeSet<_> = manifest.master_keys.into_iter().chain([key_id.clone()]).collect();
    let known = Known {
        backup: Backup {
            id,
            filename,
            size_bytes,
            sha256,
            key_id,
            created_at,
            trigger,
        },
        master_keys: Some(needed.into_iter().collect()),
        epoch: Some(facts.epoch),
    };
    finish(storage, (database, keyring), &known).inspect_err(|_| give_up(storage, &known.backup.filename))?;
    unmark(storage, &known.backup.filename);
    Ok(known.backup)
}

/// What the storage has opens again and is what the manifest says: only then it is a backup.
fn finish(storage: &Storage, (database, keyring): (&Path, &Keyring), known: &Known) -> Result<(), Error> {
    let source = Stored {
        storage: storage.clone(),
        name: known.backup.filename.clone(),
    };
    let asked = Asked {
        id: Some(known.backup.id),
        keyring: Some(keyring),
        identity: None,
    };
    verify(&source, &asked, folder_of(database))?;
    let json = serde_json::to_vec_pretty(known).expect("it has text and numbers only");
    Ok(storage.write(&format!("{}{KNOWN}", known.backup.filename), &json)?)
}

/// Takes nothing any more from the `end` on.
struct Until<'a, W> {
    end: &'a CancellationToken,
    inner: W,
}

impl<W: Write> Write for Until<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.end.is_cancelled() {
            return Err(io::Error::other("the server ends"));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts and hashes what goes through.
pub(super) struct Counted<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Counted<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// With how much that was, and its hash as 64 hex digits.
    pub(super) fn into_parts(self) -> (W, u64, String) {
        (self.inner, self.bytes, HEXLOWER.encode(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
