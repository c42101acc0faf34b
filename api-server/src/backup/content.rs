//! What is inside a backup, under the seal: its manifest and the database, compressed together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::archive::{Header, Opener, Sealer};
use super::{Damage, Error};
use crate::store::Facts;

/// zstd's own default: sealed values do not compress, and what surrounds them does at any level.
pub(super) const LEVEL: i32 = 3;
/// Most memory that reading may take, as a power of two: four times what this level uses, so that an archive that was made
/// to take more is refused.
pub(super) const WINDOW: u32 = 23;
/// Longest manifest: some hundred bytes for each organization.
const MAX_MANIFEST: u32 = 64 * 1024 * 1024;
const PIECE: usize = 64 * 1024;
/// What the header calls it.
pub const CONTENT: &str = "backup";

/// What the database of a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub backup: Uuid,
    pub created_at: Time,
    /// Version of the server that made it.
    pub server: String,
    pub schema: usize,
    pub epoch: Uuid,
    pub database_bytes: u64,
    /// 64 hex digits.
    pub database_sha256: String,
    /// Rows by table.
    pub counts: BTreeMap<String, u64>,
    /// The last `seq` and hash of each audit chain, by its id; the nil one is the instance's.
    pub audit_heads: BTreeMap<Uuid, (u64, String)>,
    /// Ids of the master keys that its values need.
    pub master_keys: Vec<String>,
}

impl Manifest {
    /// Of a copy of the database.
    pub(super) fn of(header: &Header, database: &Path, facts: &Facts) -> Result<Self, Error> {
        let (mut file, mut hash, mut bytes) = (File::open(database)?, Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            bytes += read as u64;
        }
        let Facts {
            schema,
            epoch,
            counts,
            heads,
            keys,
        } = facts.clone();
        Ok(Self {
            backup: header.id,
            created_at: header.created_at,
            server: header.server.clone(),
            schema,
            epoch,
            database_bytes: bytes,
            database_sha256: HEXLOWER.encode(&hash.finalize()),
            counts,
            audit_heads: heads
                .iter()
                .map(|head| (head.chain.id(), (head.seq, HEXLOWER.encode(&head.hash))))
                .collect(),
            master_keys: keys.iter().map(ToString::to_string).collect(),
        })
    }

    /// What the restored database is found to be, against what it was.
    pub(super) fn check(&self, facts: &Facts) -> Result<(), Error> {
        let differs = |what: &str| Error::from(Damage::Database(what.to_owned()));
        if facts.counts != self.counts {
            return Err(differs("a table has another number of rows"));
        }
        if facts.schema != self.schema || facts.epoch != self.epoch {
            return Err(differs("its schema or its epoch is another"));
        }
        let heads = facts.heads.iter();
        let heads: BTreeMap<_, _> = heads
            .map(|head| (head.chain.id(), (head.seq, HEXLOWER.encode(&head.hash))))
            .collect();
        if heads != self.audit_heads {
            return Err(differs("an audit chain ends elsewhere"));
        }
        Ok(())
    }
}

/// Writes manifest and database into the archive, and ends it.
pub(super) fn pack<W: Write>(manifest: &Manifest, database: &Path, sealer: Sealer<W>) -> Result<W, Error> {
    let json = serde_json::to_vec(manifest).expect("a manifest has text and numbers only");
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_MANIFEST);
    let length = length.ok_or(Error::ManifestTooLong {
        bytes: json.len(),
        most: MAX_MANIFEST,
    })?;
    let mut encoder = zstd::stream::write::Encoder::new(sealer, LEVEL)?;
    encoder.write_all(&length.to_be_bytes())?;
    encoder.write_all(&json)?;
    std::io::copy(&mut File::open(database)?, &mut encoder)?;
    Ok(encoder.finish()?.finish()?)
}

/// A backup that is being read.
pub(super) struct Unpacking<R: Read> {
    decoder: zstd::stream::read::Decoder<'static, std::io::BufReader<Opener<R>>>,
    pub(super) manifest: Manifest,
}

impl<R: Read> Unpacking<R> {
    /// Reads the manifest.
    pub(super) fn begin(opener: Opener<R>) -> Result<Self, Error> {
        let header = opener.header.clone();
        if header.content != CONTENT {
            return Err(Error::NotABackup(header.content));
        }
        let mut decoder = zstd::stream::read::Decoder::new(opener)?;
        decoder.window_log_max(WINDOW)?;
        let mut length = [0; 4];
        decoder.read_exact(&mut length).map_err(unpacked)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_MANIFEST {
            return Err(Damage::Unpacked.into());
        }
        let mut json = Vec::new();
        let read = (&mut decoder).take(length.into()).read_to_end(&mut json);
        if read.map_err(unpacked)? as u64 != u64::from(length) {
            return Err(Damage::Unpacked.into());
        }
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|_| Damage::Unpacked)?;
        if manifest.backup != header.id || manifest.schema != header.schema {
            return Err(Damage::Unpacked.into());
        }
        Ok(Self { decoder, manifest })
    }

    /// Reads to the end, into `database`; an error unless that is what the manifest says.
    pub(super) fn copy(mut self, database: &mut impl Write) -> Result<Manifest, Error> {
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
        loop {
            let read = self.decoder.read(&mut piece).map_err(unpacked)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > self.manifest.database_bytes {
                return Err(Damage::Unpacked.into());
            }
            hash.update(&piece[..read]);
            database.write_all(&piece[..read])?;
        }
        let is_whole = bytes == self.manifest.database_bytes;
        if !is_whole || HEXLOWER.encode(&hash.finalize()) != self.manifest.database_sha256 {
            return Err(Damage::Unpacked.into());
        }
        Ok(self.manifest)
    }
}

/// An error of the reader below says what it is; any other one is that what was sealed is not what this version would seal.
pub(super) fn unpacked(error: std::io::Error) -> Error {
    let is_file = error.raw_os_error().is_some();
    match Error::from(error) {
        Error::Io(_) if !is_file => Damage::Unpacked.into(),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::Keys;
    use super::*;
    use crate::crypto::{Keyring, generate_master_key};

    fn manifest(header: &Header, bytes: u64) -> Manifest {
        Manifest {
            backup: header.id,
            created_at: header.created_at,
            server: header.server.clone(),
            schema: header.schema,
            epoch: Uuid::nil(),
            database_bytes: bytes,
            database_sha256: HEXLOWER.encode(&Sha256::digest(b"content")),
            counts: BTreeMap::new(),
            audit_heads: BTreeMap::new(),
            master_keys: Vec::new(),
        }
    }

    /// What comes out of an archive that somebody with the key made of this database and manifest.
    fn unpack(change: impl FnOnce(&Path, &mut Manifest)) -> Result<Vec<u8>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("database");
        std::fs::write(&path, b"content").unwrap();
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        let header = Header::new(Uuid::now_v7(), CONTENT, 3);
        let mut manifest = manifest(&header, 7);
        change(&path, &mut manifest);
        let sealer = Sealer::new(Vec::new(), header, &keyring, &[]).unwrap();
        let archive = pack(&manifest, &path, sealer).unwrap();
        let (opener, _) = Opener::new(&archive[..], &Keys::Keyring(&keyring)).unwrap();
        let mut out = Vec::new();
        Unpacking::begin(opener)?.copy(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_was_packed_comes_out() {
        assert_eq!(unpack(|_, _| {}).unwrap(), b"content");
    }

    #[test]
    fn a_manifest_that_no_reader_would_take_is_not_sealed() {
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        let header = Header::new(Uuid::now_v7(), CONTENT, 3);
        let mut manifest = manifest(&header, 7);
        manifest.counts.insert("t".repeat(MAX_MANIFEST as usize), 1);
        let sealer = Sealer::new(Vec::new(), header, &keyring, &[]).unwrap();
        let error = pack(&manifest, Path::new("not read"), sealer).unwrap_err();
        assert!(
            matches!(error, Error::ManifestTooLong { bytes, .. } if bytes > MAX_MANIFEST as usize),
            "{error}"
        );
    }

    #[test]
    fn an_archive_that_unpacks_to_more_than_it_says_is_refused_before_it_fills_anything() {
        let changes: [fn(&Path, &mut Manifest); 5] = [
            |path, _| std::fs::File::create(path).unwrap().set_len(64 * 1024 * 1024).unwrap(),
            |_, manifest| manifest.database_bytes = 6,
            |_, manifest| manifest.database_bytes = 8,
            |path, _| std::fs::write(path, b"CONTENT").unwrap(),
            |_, manifest| manifest.backup = Uuid::nil(),
        ];
        for change in changes {
            let refused = unpack(change);
            assert!(matches!(refused, Err(Error::Damaged(Damage::Unpacked))), "{refused:?}");
        }
    }
}
