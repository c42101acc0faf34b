//! Old entries of the audit log, sealed like a backup and kept beside the backups.
//!
//! ```text
//! {"segment":{"chain":…,"first":…,"last":…,"previous":…,"head":…}}     of each chain, then its entries, oldest first:
//! {"id":…,"seq":…,"action":…,…,"metadata":"{…}","hash":…}
//! ```
//! An entry has every part that its hash covers, in that form. An export is read back from the storage, and each hash
//! checked against the one before it, before anything is dropped from the database.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::archive::{Header, Keys, Opener, Sealer};
use super::content::{LEVEL, WINDOW, unpacked};
use super::restore::{Asked, Source};
use super::service::{Counted, Stored, known_of, named, on_a_thread, sweep};
use super::storage::Storage;
use super::{Backups, Damage, Error, Recipient};
use crate::audit::{self, AuditKey, Broken, Chain, Segment, StoredEntry};
use crate::crypto::Keyring;
use crate::store::{self, Store};

/// What the header calls it.
const CONTENT: &str = "audit";
/// How its name ends, and that of what is known of it.
const ARCHIVE: &str = ".audit";
pub(super) const KNOWN: &str = ".audit.json";
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
        let _turn = self.0.turn.try_acquire().map_err(|_| Error::Busy)?;
        let (inner, store) = (Arc::clone(&self.0), store.clone());
        let made = on_a_thread(move || {
            let order = Order {
                storage: &storage,
                keyring: &inner.keyring,
                recipients: &inner.settings.recipients,
                segments: &segments,
            };
            sweep(&storage, ARCHIVE, |name| is_needed(&store, name))?;
            order.write(&store)
        });
        let made = made.await?;
        self.forget_exports();
        Ok(made)
    }

    /// Takes an export away that nothing in the database tells of.
    pub async fn withdraw(&self, export: &Export) -> Result<(), Error> {
        let (storage, name) = (self.storage()?, export.filename.clone());
        on_a_thread(move || withdraw(&storage, &name)).await?;
        self.forget_exports();
        Ok(())
    }
}

/// What is known of it goes first: without that it is no export.
fn withdraw(storage: &Storage, name: &str) -> Result<(), Error> {
    storage.remove(&format!("{name}.json"))?;
    Ok(storage.remove(name)?)
}

/// Whether entries were dropped behind this archive. It stays, even if what was known of it is lost.
fn is_needed(store: &Store, name: &str) -> Result<bool, Error> {
    let id = name
        .strip_suffix(ARCHIVE)
        .and_then(|name| name.get(name.len().checked_sub(36)?..));
    match id.and_then(|id| id.parse().ok()) {
        Some(id) => Ok(super::restore::block_on(store.has_cut(id))?),
        None => Ok(true),
    }
}

/// Oldest first.
pub fn exports(storage: &Storage) -> Result<Vec<Export>, Error> {
    let (known, _) = known_of::<Export>(storage, &storage.list()?, KNOWN)?;
    let mut exports: Vec<_> = known.into_iter().map(|(_, export)| export).collect();
    exports.sort_unstable_by_key(|export| (export.created_at, export.id));
    Ok(exports)
}

impl Order<'_> {
    fn write(&self, store: &Store) -> Result<Export, Error> {
        let header = Header::new(Uuid::now_v7(), CONTENT, store::known_schema());
        let name = named(header.created_at, "sealpod-audit", header.id, ARCHIVE);
        self.write_as(store, header, &name).inspect_err(|_| {
            // What an upload that failed has left it takes away itself.
            if let Err(error) = withdraw(self.storage, &name) {
                tracing::warn!(%error, file = name, "what is left of an export that failed could not be removed");
            }
        })
    }

    fn write_as(&self, store: &Store, header: Header, filename: &str) -> Result<Export, Error> {
        // 1. Sealed on its way.
        let (id, created_at, key) = (header.id, header.created_at, store.audit_key());
        let sink = Counted::new(self.storage.create(filename)?);
        let sealer = Sealer::new(sink, header, self.keyring, self.recipients)?;
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
        self.check(&source, &asked, &key)?;
        // 3. Only now it is one.
        let export = Export {
            id,
            filename: filename.to_owned(),
            size_bytes,
            sha256,
            key_id: self.keyring.current().to_string(),
            created_at,
            entries: self.segments.iter().map(Segment::entries).sum(),
        };
        let json = serde_json::to_vec_pretty(&export).expect("it has text and numbers only");
        self.storage.write(&format!("{filename}.json"), &json)?;
        Ok(export)
    }

    fn check(&self, source: &Stored, asked: &Asked<'_>, key: &AuditKey) -> Result<(), Error> {
        let mut found = Vec::new();
        read_export(source, asked, |part| {
            match part {
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
        })?;
        let is_whole = found.len() == self.segments.len()
            && found
                .iter()
                .zip(self.segments)
                .all(|((found, end), asked)| found == asked && *end == (asked.last, asked.head));
        if is_whole { Ok(()) } else { Err(Damage::Unpacked.into()) }
    }
}

/// An error at the first entry that is not as it was written: then nothing of this becomes an archive.
fn write_segment(out: &mut impl Write, store: &Store, key: &AuditKey, segment: &Segment) -> Result<(), Error> {
    line(out, &Line::segment(segment))?;
    let chain = segment.chain;
    let broken = |broken| Error::BrokenChain { chain, broken };
    let mut end = (segment.first - 1, segment.previous);
    while end.0 < segment.last {
        let page = store.audit_following(chain, end.0, PAGE);
        let entries = super::restore::block_on(page)?;
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

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Segment { segment: SegmentLine },
    Entry(Box<EntryLine>),
}

impl Line {
    fn segment(segment: &Segment) -> Self {
        Self::Segment {
            segment: SegmentLine {
                chain: segment.chain.id(),
                first: segment.first,
                last: segment.last,
                previous: HEXLOWER.encode(&segment.previous),
                head: HEXLOWER.encode(&segment.head),
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentLine {
    /// The organization's id; nil for the instance's chain.
    chain: Uuid,
    first: u64,
    last: u64,
    previous: String,
    head: String,
}

impl SegmentLine {
    fn parse(&self) -> Option<Segment> {
        let segment = Segment {
            chain: Chain::of_id(self.chain),
            first: self.first,
            last: self.last,
            previous: hash(&self.previous)?,
            head: hash(&self.head)?,
        };
        (segment.first > 0 && segment.last >= segment.first).then_some(segment)
    }
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    id: Uuid,
    seq: u64,
    created_at: Time,
    action: String,
    actor_type: String,
    actor_id: Option<Uuid>,
    actor_name: String,
    resource_type: String,
    resource_id: Option<Uuid>,
    resource_name: Option<String>,
    project: Option<String>,
    environment: Option<String>,
    outcome: String,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    /// JSON as text, because the hash is over its bytes.
    metadata: String,
    hash: String,
}

impl From<StoredEntry> for EntryLine {
    fn from(entry: StoredEntry) -> Self {
        Self {
            id: entry.id,
            seq: entry.seq,
            created_at: entry.created_at,
            action: entry.action,
            actor_type: entry.actor_type,
            actor_id: entry.actor_id,
            actor_name: entry.actor_name,
            resource_type: entry.resource_type,
            resource_id: entry.resource_id,
            resource_name: entry.resource_name,
            project: entry.project,
            environment: entry.environment,
            outcome: entry.outcome,
            ip: entry.ip,
            user_agent: entry.user_agent,
            request_id: entry.request_id,
            metadata: entry.metadata,
            hash: HEXLOWER.encode(&entry.hash),
        }
    }
}

impl EntryLine {
    fn of(self, chain: Chain) -> Option<StoredEntry> {
        Some(StoredEntry {
            chain,
            seq: self.seq,
            id: self.id,
            created_at: self.created_at,
            action: self.action,
            actor_type: self.actor_type,
            actor_id: self.actor_id,
            actor_name: self.actor_name,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            resource_name: self.resource_name,
            project: self.project,
            environment: self.environment,
            outcome: self.outcome,
            ip: self.ip,
            user_agent: self.user_agent,
            request_id: self.request_id,
            metadata: self.metadata,
            hash: hash(&self.hash)?,
        })
    }
}
