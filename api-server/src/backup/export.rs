//! Old entries of the audit log, sealed like a backup and kept beside the backups.
//!
//! ```text
//! {"segment":{"chain":…,"first":…,"last":…,"previous":…,"head":…}}     of each chain, then its entries, oldest first:
//! {"id":…,"seq":…,"action":…,…,"metadata":"{…}","hash":…}
//! ```
//! An entry has every part that its hash covers, in that form. An export is read back from the storage, and each hash
//! checked against the one before it, before anything is dropped from the database.

mod line;

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use line::Line;

use super::archive::{Header, Keys, Opener, Sealer, header};
use super::content::{LEVEL, WINDOW, unpacked};
use super::known::{KNOWN, Told, give_up, id_in, known_of, named, sweep, withdraw};
use super::make::{Counted, Stored};
use super::restore::{Asked, Source, block_on};
use super::storage::{Kept, Storage};
use super::worker::aside;
use super::{Backups, Damage, Error, Recipient};
use crate::audit::{self, AuditKey, Broken, Segment, StoredEntry};
use crate::crypto::Keyring;
use crate::store::{self, Store};

/// What the header calls it.
const CONTENT: &str = "audit";
/// How its name ends.
pub(super) const ARCHIVE: &str = ".audit";
/// Entries that are in memory at a time.
const PAGE: u32 = 1_000;
/// Longest line: names and metadata of an entry are bounded far below.
const MAX_LINE: u64 = 8 * 1024 * 1024;

/// An export that was finished and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    pub id: Uuid,
    pub filename: String,
    pub size_bytes: u64,
    pub sha256: String,
    /// Id of the master key that opens it.
    pub key_id: String,
    pub created_at: Time,
    pub entries: u64,
}

/// What is exported, where to, and who can open it.
struct Order<'a> {
    storage: &'a Storage,
    keyring: &'a Keyring,
    recipients: &'a [Recipient],
    segments: &'a [Segment],
}

impl Backups {
    /// Whether there is a place for exports.
    pub fn have_storage(&self) -> bool {
        self.0.settings.storage.is_some()
    }

    /// Writes these entries to an archive; returns once that was read back and found to be what the log has.
    pub async fn export(&self, store: &Store, segments: Vec<Segment>) -> Result<Export, Error> {
        let storage = self.storage()?;
        let id = Uuid::now_v7();
        let (turn, store) = (self.turn(Some(id))?, store.clone());
        let inner = Arc::clone(&self.0);
        let work = move || {
            let _turn = turn;
            let order = Order {
                storage: &storage,
                keyring: &inner.keyring.snapshot(),
                recipients: &inner.settings.recipients,
                segments: &segments,
            };
            sweep(&storage, ARCHIVE, |name| {
                may_be_needed((&storage, &inner.unread), &store, name)
            })?;
            order.write(&store, id)
        };
        self.0.worker.run(work).await
    }

    /// An export of the beginning of what is due that no record tells of, with what is in it: of a process that was stopped
    /// before it came to that, or of the database before this one was restored. It was proved anew.
    pub async fn unfinished(&self, store: &Store, due: &[Segment]) -> Result<Option<(Export, Vec<Segment>)>, Error> {
        let storage = self.storage()?;
        let (turn, store, due) = (self.turn(None)?, store.clone(), due.to_vec());
        let inner = Arc::clone(&self.0);
        let look = move || {
            let _turn = turn;
            let files = storage.list()?;
            let exports = files.iter().filter(|file| file.name.ends_with(ARCHIVE));
            first_of(exports, &inner.unread, |file| {
                let id = id_in(&file.name).filter(|id| block_on(store.has_cut(*id)) == Ok(false));
                let Some(id) = id else { return Ok(None) };
                take_up(&storage, (&store, &inner.keyring), (id, file), &due)
            })
        };
        self.0.worker.run(look).await
    }

    /// Takes an export away that nothing in the database tells of.
    pub async fn withdraw(&self, export: &Export) -> Result<(), Error> {
        let (storage, name) = (self.storage()?, export.filename.clone());
        aside(move || withdraw(&storage, &name)).await
    }
}

/// The first of these in which `look` finds something. One that cannot be read keeps nobody from the others: what is due goes to
/// another archive then, and is in both.
fn first_of<'a, T>(
    mut files: impl Iterator<Item = &'a Kept>,
    unread: &Told,
    mut look: impl FnMut(&Kept) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let found = files.find_map(|file| match look(file) {
        Err(error @ (Error::Storage(_) | Error::Io(_))) => {
            unread.warn(&file.name, &error);
            None
        }
        Err(error @ Error::Store(_)) => Some(Err(error)),
        read => {
            unread.settle(&file.name);
            let said = read.inspect_err(|error| {
                tracing::debug!(%error, file = file.name, "an export that is not on record stays as it is");
            });
            said.ok().flatten().map(Ok)
        }
    });
    found.transpose()
}

/// What is in this archive, where it is what the log begins with and all of it is due.
fn take_up(
    storage: &Storage,
    (store, keyring): (&Store, &Keyring),
    (id, file): (Uuid, &Kept),
    due: &[Segment],
) -> Result<Option<(Export, Vec<Segment>)>, Error> {
    let source = Stored {
        storage: storage.clone(),
        name: file.name.clone(),
    };
    let asked = Asked {
        id: Some(id),
        keyring: Some(keyring),
        identity: None,
    };
    let key = store.audit_key();
    let is_due = |segment: &Segment| {
        let begins =
            |due: &&Segment| (due.chain, due.first, due.previous) == (segment.chain, segment.first, segment.previous);
        due.iter().find(begins).is_some_and(|due| segment.last <= due.last)
    };
    let Some(segments) = segments(&source, &asked, &key, is_due)?.filter(|segments| !segments.is_empty()) else {
        return Ok(None);
    };
    for segment in &segments {
        write_segment(&mut std::io::sink(), store, &key, segment)?;
    }
    let header = header(&mut source.open()?)?;
    let mut content = Counted::new(std::io::sink());
    std::io::copy(&mut source.open()?, &mut content)?;
    let (_, size_bytes, sha256) = content.into_parts();
    let export = Export {
        id,
        filename: source.name,
        size_bytes,
        sha256,
        key_id: header.key_id,
        created_at: header.created_at,
        entries: segments.iter().map(Segment::entries).sum(),
    };
    // It may have been stopped before that, too.
    export.store(storage)?;
    tracing::info!(file = export.filename, "took up an export that was not on record");
    Ok(Some((export, segments)))
}

/// Whether entries may have been dropped behind this archive, here or in the database that this one was restored in place of. It
/// stays, even if what was known of it is lost, and so does what cannot be read. What is no archive is needed by nobody.
fn may_be_needed((storage, unread): (&Storage, &Told), store: &Store, name: &str) -> Result<bool, Error> {
    let Some(id) = id_in(name) else { return Ok(true) };
    if block_on(store.has_cut(id))? {
        return Ok(true);
    }
    let read = storage.open(name).map_err(Error::from);
    Ok(is_archive((name, unread), read.and_then(|mut file| header(&mut file))))
}

/// Whether this is the header of an archive, or may be.
fn is_archive((name, unread): (&str, &Told), read: Result<Header, Error>) -> bool {
    match read {
        Err(Error::NotAnArchive | Error::Damaged(_)) => false,
        Err(error @ (Error::Storage(_) | Error::Io(_))) => {
            unread.warn(name, &error);
            true
        }
        // Another version knows its form.
        Ok(_) | Err(_) => true,
    }
}

/// Oldest first.
pub fn exports(storage: &Storage) -> Result<Vec<Export>, Error> {
    let known = known_of::<Export>(storage, &storage.list()?, ARCHIVE)?;
    let mut exports: Vec<_> = known.into_iter().map(|(_, export)| export).collect();
    exports.sort_unstable_by_key(|export| (export.created_at, export.id));
    Ok(exports)
}

impl Export {
    /// Makes it one.
    fn store(&self, storage: &Storage) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(self).expect("it has text and numbers only");
        Ok(storage.write(&format!("{}{KNOWN}", self.filename), &json)?)
    }
}

impl Order<'_> {
    fn write(&self, store: &Store, id: Uuid) -> Result<Export, Error> {
        let header = Header::new(id, CONTENT, store::known_schema());
        let name = named(header.created_at, "sealpod-audit", header.id, ARCHIVE);
        // What an upload that failed has left it takes away itself.
        self.write_as(store, header, &name)
            .inspect_err(|_| give_up(self.storage, &name))
    }

    fn write_as(&self, store: &Store, header: Header, filename: &str) -> Result<Export, Error> {
        // 1. Sealed on its way.
        let (id, created_at, key) = (header.id, header.created_at, store.audit_key());
        let sink = Counted::new(self.storage.create(filename)?);
        let sealer = Sealer::new(sink, header, self.keyring, self.recipients)?;
        let key_id = sealer.sealed_under().to_string();
        let mut encoder = zstd::stream::write::Encoder::new(sealer, LEVEL)?;
        for segment in self.segments {
            write_segment(&mut encoder, store, &key, segment)?;
        }
        let (inner, size_bytes, sha256) = encoder.finish()?.finish()?.into_parts();
        inner.finish()?;
        // 2. What the storage has is what the log has, entry by entry.
        let source = Stored {
            storage: self.storage.clone(),
            name: filename.to_owned(),
        };
        let asked = Asked {
            id: Some(id),
            keyring: Some(self.keyring),
            identity: None,
        };
        if segments(&source, &asked, &key, |_| true)?.as_deref() != Some(self.segments) {
            return Err(Damage::Unpacked.into());
        }
        // 3. Only now it is one.
        let export = Export {
            id,
            filename: filename.to_owned(),
            size_bytes,
            sha256,
            key_id,
            created_at,
            entries: self.segments.iter().map(Segment::entries).sum(),
        };
        export.store(self.storage)?;
        Ok(export)
    }
}

/// What an archive has of each chain; an error where an entry is not as it was written, or missing. None, and nothing further is
/// read, from the first one on that is not `wanted`.
fn segments<S: Source>(
    source: &S,
    asked: &Asked<'_>,
    key: &AuditKey,
    wanted: impl Fn(&Segment) -> bool,
) -> Result<Option<Vec<Segment>>, Error> {
    let mut found: Vec<(Segment, (u64, [u8; 32]))> = Vec::new();
    let mut is_other = false;
    let read = read_export(source, asked, |part| {
        match part {
            // This only ends the reading.
            Part::Segment(segment) if !wanted(&segment) => {
                is_other = true;
                return Err(Damage::Unpacked.into());
            }
            Part::Segment(segment) => found.push((segment, (segment.first - 1, segment.previous))),
            Part::Entry(entry) => {
                let (_, last) = found.last_mut().ok_or(Damage::Unpacked)?;
                let hash = audit::check(key, *last, &entry).map_err(|broken| Error::BrokenChain {
                    chain: entry.chain,
                    broken,
                })?;
                *last = (entry.seq, hash);
            }
        }
        Ok(())
    });
    if is_other {
        return Ok(None);
    }
    read?;
    if found.iter().any(|(segment, end)| *end != (segment.last, segment.head)) {
        return Err(Damage::Unpacked.into());
    }
    Ok(Some(found.into_iter().map(|(segment, _)| segment).collect()))
}

/// An error at the first entry that is not as it was written: then nothing of this becomes an archive.
fn write_segment(out: &mut impl Write, store: &Store, key: &AuditKey, segment: &Segment) -> Result<(), Error> {
    line(out, &Line::segment(segment))?;
    let chain = segment.chain;
    let broken = |broken| Error::BrokenChain { chain, broken };
    let mut end = (segment.first - 1, segment.previous);
    while end.0 < segment.last {
        let page = store.audit_following(chain, end.0, PAGE);
        let entries = block_on(page)?;
        // All of them are there, unless somebody else has the file.
        if entries.first().is_none_or(|entry| entry.seq > segment.last) {
            return Err(broken(Broken::Gone { seq: end.0 + 1 }));
        }
        for entry in entries.into_iter().take_while(|entry| entry.seq <= segment.last) {
            end = (entry.seq, audit::check(key, end, &entry).map_err(broken)?);
            line(out, &Line::Entry(Box::new(entry.into())))?;
        }
    }
    if end.1 == segment.head {
        Ok(())
    } else {
        Err(broken(Broken::Changed { seq: end.0 }))
    }
}

fn line(out: &mut impl Write, line: &Line) -> Result<(), Error> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// What an export consists of.
pub enum Part {
    /// The entries that follow are of this one.
    Segment(Segment),
    Entry(Box<StoredEntry>),
}

/// Reads an export to its end. What it says is believed once that is reached: the seal covers all of it.
pub fn read_export<S: Source>(
    source: &S,
    asked: &Asked<'_>,
    mut see: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), Error> {
    let keys = match (asked.identity, asked.keyring) {
        (Some(identity), _) => Keys::Identity(identity),
        (None, Some(keyring)) => Keys::Keyring(keyring),
        (None, None) => return Err(Error::NoRecipients),
    };
    let (opener, _) = Opener::new(source.open()?, &keys)?;
    if opener.header.content != CONTENT {
        return Err(Error::NotAnExport(opener.header.content));
    }
    if let Some(asked) = asked.id.filter(|asked| *asked != opener.header.id) {
        let found = opener.header.id;
        return Err(Error::Another { asked, found });
    }
    let mut decoder = zstd::stream::read::Decoder::new(opener)?;
    decoder.window_log_max(WINDOW)?;
    let mut lines = BufReader::new(decoder);
    let (mut chain, mut text) = (None, Vec::new());
    loop {
        text.clear();
        let read = (&mut lines)
            .take(MAX_LINE)
            .read_until(b'\n', &mut text)
            .map_err(unpacked)?;
        if read == 0 {
            return Ok(());
        }
        let line = serde_json::from_slice(&text).map_err(|_| Damage::Unpacked)?;
        see(match line {
            Line::Segment { segment } => {
                let segment = segment.parse().ok_or(Damage::Unpacked)?;
                chain = Some(segment.chain);
                Part::Segment(segment)
            }
            Line::Entry(entry) => Part::Entry(Box::new(
                entry.of(chain.ok_or(Damage::Unpacked)?).ok_or(Damage::Unpacked)?,
            )),
        })?;
    }
}

#[cfg(test)]
mod tests;
