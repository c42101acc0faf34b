//! Old entries of the audit log, sealed like a backup and kept beside the backups.
//!
//! ```text
//! {"segment":{"chain":…,"first":…,"last":…,"previous":…,"head":…}}     of each chain, then its entries, oldest first:
//! {"id":…,"seq":…,"action":…,…,"metadata":"{…}","hash":…}
//! ```
//! An entry has every part that its hash covers, in that form. An export is read back from the storage, and each hash
//! checked against the one before it, before anything is dropped from the database.

mod line;
mod read;

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use line::Line;
use read::segments_if;
pub use read::{Part, read_export, segments};

use super::archive::{Header, Sealer, header};
use super::content::LEVEL;
use super::known::{KNOWN, Told, give_up, id_in, is_marked, is_young, known_of, named, sweep, withdraw};
use super::make::{Counted, Stored};
use super::restore::{Asked, Source, block_on};
use super::storage::{Kept, Storage};
use super::worker::aside;
use super::{Backups, Damage, Error, Recipient};
use crate::audit::{self, AuditKey, Broken, Segment};
use crate::crypto::Keyring;
use crate::store::{self, Store};

/// What the header calls it.
const CONTENT: &str = "audit";
/// How its name ends.
pub(super) const ARCHIVE: &str = ".audit";
/// Entries that are in memory at a time.
const PAGE: u32 = 1_000;

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
            let judged = block_on(store.judged_time(Time::now(), Instant::now()))?;
            // Behind a row that names it entries were dropped, whatever became of the file.
            let is_cut = |id| Ok(block_on(store.has_cut(id))?);
            sweep((&storage, &inner.told), ARCHIVE, judged, is_cut)?;
            order.write(&store, id)
        };
        self.0.worker.run(work).await
    }

    /// An export of the beginning of what is due that no record tells of, with what is in it: of a process that was stopped
    /// before it came to that, or of the database before this one was restored. It was proved anew. One that is not of this
    /// epoch is passed over for a day, and for as long as it is marked as none: a server on that database takes it away itself where
    /// it does not come on record there, and must not take what entries were dropped for here.
    pub async fn unfinished(&self, store: &Store, due: &[Segment]) -> Result<Option<(Export, Vec<Segment>)>, Error> {
        let storage = self.storage()?;
        let (turn, store, due) = (self.turn(None)?, store.clone(), due.to_vec());
        let inner = Arc::clone(&self.0);
        let look = move || {
            let _turn = turn;
            let files = storage.list()?;
            let judged = block_on(store.judged_time(Time::now(), Instant::now()))?;
            let exports = files.iter().filter(|file| file.name.ends_with(ARCHIVE));
            first_of(exports, &inner.told, |file| {
                let id = id_in(&file.name).filter(|id| block_on(store.has_cut(*id)) == Ok(false));
                let Some(id) = id else { return Ok(None) };
                let may_go = is_young(file, judged) || is_marked(&files, &file.name);
                if may_go && header(&mut storage.open(&file.name)?)?.epoch != Some(store.epoch()) {
                    return Ok(None);
                }
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
    let Some(segments) = segments_if(&source, &asked, &key, is_due)?.filter(|segments| !segments.is_empty()) else {
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
        let mut header = Header::new(id, CONTENT, store::known_schema());
        header.epoch = Some(store.epoch());
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
        if segments(&source, &asked, &key)? != self.segments {
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

/// An error at the first entry that is not as it was written: then nothing of this becomes an archive.
fn write_segment(out: &mut impl Write, store: &Store, key: &AuditKey, segment: &Segment) -> Result<(), Error> {
    line(out, &Line::segment(segment))?;
    let chain = segment.chain;
    let broken = |broken| Error::BrokenChain { chain, broken };
    let mut end = segment.begin();
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
    segment.ends_at(end).map_err(broken)
}

fn line(out: &mut impl Write, line: &Line) -> Result<(), Error> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

#[cfg(test)]
mod tests;
