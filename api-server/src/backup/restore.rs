//! From an archive to a database. An archive is read twice: once to the end, before anything is written, and once to write the
//! new file, which gets its name last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::archive::{Keys, Opener};
use super::content::{Manifest, Unpacking};
use super::scratch::{Scratch, folder_of};
use super::steady::Steady;
use super::{Error, Identity};
use crate::audit::By;
use crate::crypto::Keyring;
pub(super) use crate::store::sync_folder;
use crate::store::{self, Options, Store, StoreError};

/// An archive that can be read from its beginning as often as needed.
pub trait Source {
    type Reader: Read;

    fn open(&self) -> Result<Self::Reader, Error>;
}

impl Source for PathBuf {
    type Reader = io::BufReader<File>;

    fn open(&self) -> Result<Self::Reader, Error> {
        Ok(io::BufReader::new(File::open(self)?))
    }
}

/// What becomes of the keys in the restored database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All are revoked: keys that were revoked since the backup would be valid again.
    Nothing,
    /// They stay: somebody has looked at what that revives.
    Keys,
}

/// A restored database before it has its name, and before its sessions and keys end.
pub struct Unpacked<'a> {
    pub path: &'a Path,
    /// As in [`Restored`].
    pub carried: Option<&'a Keyring>,
}

/// A database that was restored.
#[derive(Debug)]
pub struct Restored {
    pub path: PathBuf,
    pub manifest: Manifest,
    /// The master keys that the archive carried for an offline identity.
    pub carried: Option<Keyring>,
}

/// Which archive it has to be, and what opens it.
pub struct Asked<'a> {
    pub id: Option<Uuid>,
    pub keyring: Option<&'a Keyring>,
    pub identity: Option<&'a Identity>,
}

impl Asked<'_> {
    /// Opens it, whatever is in it; answers, with an identity, the master keys that it carries.
    pub(super) fn opener<R: Read>(&self, reader: R) -> Result<(Opener<R>, Option<Keyring>), Error> {
        let keys = match (self.identity, self.keyring) {
            (Some(identity), _) => Keys::Identity(identity),
            (None, Some(keyring)) => Keys::Keyring(keyring),
            (None, None) => return Err(Error::NoRecipients),
        };
        let (opener, carried) = Opener::new(reader, &keys)?;
        if let Some(asked) = self.id.filter(|asked| *asked != opener.header.id) {
            let found = opener.header.id;
            return Err(Error::Another { asked, found });
        }
        Ok((opener, carried))
    }

    fn open<R: Read>(&self, reader: R) -> Result<(Unpacking<R>, Option<Keyring>), Error> {
        let (opener, carried) = self.opener(reader)?;
        let (found, known) = (opener.header.schema, store::known_schema());
        if found > known {
            return Err(Error::Newer { found, known });
        }
        Ok((Unpacking::begin(opener)?, carried))
    }

    /// Reads all of it, and writes nothing.
    fn prove<S: Source>(&self, source: &S) -> Result<(Manifest, Option<Keyring>), Error> {
        let (unpacking, carried) = self.open(source.open()?)?;
        let keyring = carried.as_ref().or(self.keyring).ok_or(Error::NoRecipients)?;
        let given: Vec<_> = keyring.ids().collect();
        let lacking = |key: &&String| !given.iter().any(|id| id.to_string() == **key);
        if let Some(key) = unpacking.manifest.master_keys.iter().find(lacking) {
            let needed = data_encoding::HEXLOWER.decode(key.as_bytes()).ok();
            let needed = needed.and_then(|id| crate::crypto::MasterKeyId::from_bytes(&id));
            let needed = needed.ok_or(super::Damage::Unpacked)?;
            return Err(Error::ForeignKey { needed, given });
        }
        Ok((unpacking.copy(&mut io::sink())?, carried))
    }

    fn unpack<S: Source>(&self, source: &S, database: &mut impl Write) -> Result<(), Error> {
        let (unpacking, _) = self.open(source.open()?)?;
        unpacking.copy(database).map(drop)
    }
}

/// Opens a backup and checks the database in it, in a file of its own in `folder` that is gone afterwards.
pub fn verify<S: Source>(source: &S, asked: &Asked<'_>, folder: &Path) -> Result<Manifest, Error> {
    let (manifest, carried) = asked.prove(source)?;
    let scratch = Scratch::new(folder)?;
    // Not flushed: it is gone before the disk would have it.
    asked.unpack(source, &mut create(&manifest, &scratch.path)?)?;
    let keyring = carried.as_ref().or(asked.keyring).ok_or(Error::NoRecipients)?;
    manifest.check(&store::inspect(&scratch.path, keyring)?)?;
    Ok(manifest)
}

/// Makes a new database at `target`. `look` sees the database as it was, before its sessions and keys end; where that fails,
/// nothing is restored.
pub fn restore<S: Source>(
    source: &S,
    asked: &Asked<'_>,
    target: &Path,
    keep: Keep,
    look: impl FnOnce(&Unpacked<'_>) -> Result<(), Error>,
    by: By,
) -> Result<Restored, Error> {
    // 1. Nothing is written before the archive is known to be whole.
    let (manifest, carried) = asked.prove(source)?;
    require_free(target)?;
    // 2. The database as it was, under another name.
    let scratch = Scratch::new(folder_of(target))?;
    let mut file = Steady::new(create(&manifest, &scratch.path)?);
    asked.unpack(source, &mut file)?;
    file.finish()?;
    // Closed before SQLite opens it: behind that, it would take SQLite's locks on it away.
    drop(file);
    let keyring = carried.as_ref().or(asked.keyring).ok_or(Error::NoRecipients)?;
    manifest.check(&store::inspect(&scratch.path, keyring)?)?;
    look(&Unpacked {
        path: &scratch.path,
        carried: carried.as_ref(),
    })?;
    // 3. Sessions and keys end, the epoch is a new one, an older schema is brought up to date.
    let options = Options {
        // There is the archive to go back to, and a copy of the copy would take as much room again.
        keep_copy: false,
        readers: 1,
        ..Options::new(&scratch.path)
    };
    let store = Store::open(&options, keyring)?;
    let finished = block_on(store.finish_restore(manifest.backup, keep == Keep::Keys, by));
    block_on(store.close());
    finished?;
    // Only what is in the file itself gets its name. The log is empty and gone unless closing met a fault, which was logged.
    match fs::metadata(store::beside(&scratch.path, "-wal")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(log) if log.len() == 0 => {}
        _ if store.trouble().commit == Some(StoreError::DiskFull) => return Err(StoreError::DiskFull.into()),
        _ => return Err(Error::Unfinished(target.to_owned())),
    }
    // 4. Its name, which nothing else has got meanwhile.
    require_free(target)?;
    fs::hard_link(&scratch.path, target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(target.to_owned()),
        _ => error.into(),
    })?;
    drop(scratch);
    // A name that a power cut may take away is none: whoever is told so finds nothing, and tries again.
    sync_folder(target).inspect_err(|_| take_away(target))?;
    Ok(Restored {
        path: target.to_owned(),
        manifest,
        carried,
    })
}

/// What has got its name already is no restored database even so.
pub(super) fn take_away(target: &Path) {
    if let Err(error) = fs::remove_file(target) {
        tracing::error!(%error, path = %target.display(), "the restore failed, and what it made could not be removed; remove it, and do not use it");
    }
}

/// The store answers on threads of its own, so this thread may simply wait.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) => handle.block_on(work),
        Err(_) => futures::executor::block_on(work),
    }
}

/// The file that a database of so many bytes is unpacked into.
fn create(manifest: &Manifest, path: &Path) -> Result<File, Error> {
    store::require_room(folder_of(path), manifest.database_bytes)?;
    Ok(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)
}

/// An error where something has the name already, or stands beside it as what would come over it when it is opened.
fn require_free(target: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(Error::Exists(target.to_owned()));
    }
    for suffix in ["-wal", "-journal"] {
        let log = store::beside(target, suffix);
        let Ok(found) = fs::symlink_metadata(&log) else {
            continue;
        };
        // Whoever only opens a database leaves an empty log, which has nothing that could come over it.
        if !(suffix == "-wal" && found.is_file() && found.len() == 0) {
            return Err(Error::LogBeside(log));
        }
    }
    Ok(())
}
