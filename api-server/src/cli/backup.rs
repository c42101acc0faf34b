//! `backup create|list|verify|restore`: on the files themselves, beside a running server or without one.

mod comparison;
mod key_file;
mod list;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use sealpod_core::wire::backups::Trigger;
use sealpod_runtime::files;
use uuid::Uuid;

use key_file::KeyFile;
pub use list::{ListArgs, list_backups};

use super::maintain::print;
use super::serve::block_on;
use super::{Failure, Outcome};
use crate::audit::By;
use crate::backup::{
    self, Asked, Error, Identity, Keep, Manifest, Recipient, Restored, Storage, Stored, Unpacked, database_name,
    exports, restore, verify, write_archive,
};
use crate::config::{Environment, Faults, StorageArgs, StoreArgs, StoreConfig};
use crate::crypto::Keyring;
use crate::store;

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    storage: StorageArgs,
    /// A public key of age, `age1…`, whose private key opens this backup without the master key; may be repeated
    #[arg(long, value_name = "KEY")]
    recipient: Vec<String>,
}

/// Which archive, and what opens it.
#[derive(Debug, Args)]
pub struct Which {
    /// Id of a backup in the storage, or path of an archive
    #[arg(value_name = "ID|FILE")]
    backup: String,
    #[command(flatten)]
    storage: StorageArgs,
    /// File of master keys, as the server has it [or one key in `SEALPOD_MASTER_KEY`]
    #[arg(long, env = "SEALPOD_MASTER_KEY_FILE", value_name = "FILE")]
    master_key_file: Option<String>,
    /// File of an offline key of age; instead of the master key
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    which: Which,
    /// Folder with room for the database, which is unpacked there and removed
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    scratch: PathBuf,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    which: Which,
    /// The database to make; a file that is there already is never overwritten
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// With --identity: the file to write the master keys to that the backup carries
    #[arg(long, value_name = "FILE", requires = "identity")]
    master_key_out: Option<PathBuf>,
    /// The database of today, to be compared with: shows what the backup would bring back and what it lacks
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Keep the keys of the backup as they are, those that were revoked since too; look at --compare first
    #[arg(long, requires = "compare")]
    keep_keys: bool,
}

pub fn create_backup(args: CreateArgs) -> Outcome {
    let mut faults = Faults::default();
    let store = StoreConfig::check(args.store, &Environment::of_process(), &mut faults);
    let settings = args.storage.check(&mut faults);
    let recipients: Result<Vec<Recipient>, _> = args.recipient.iter().map(|text| text.parse()).collect();
    if let Err(why) = &recipients {
        faults.add("--recipient", why);
    }
    let (config, settings) = faults.finish(store.zip(settings)).map_err(Failure::Configuration)?;
    let mut all = settings.recipients;
    all.extend(recipients.unwrap_or_default());
    working(move || {
        let storage = storage(settings.storage)?;
        let path = config.options.path;
        if !path.exists() {
            return Err(store::OpenError::Absent { path }.into());
        }
        let database = path.canonicalize().with_context(|| path.display().to_string())?;
        let from = (&*database, &config.keyring);
        let made = write_archive(Uuid::now_v7(), &storage, from, &all, Trigger::Command)?;
        print(format_args!(
            "{} {} ({} bytes), opened and checked",
            made.id, made.filename, made.size_bytes
        ))
    })
}

pub fn verify_backup(args: VerifyArgs) -> Outcome {
    let opened = args.which.check()?;
    working(move || {
        let (source, id) = opened.source()?;
        let manifest = verify(&source, &opened.asked(id), &args.scratch).map_err(advised)?;
        show(&manifest)
    })
}

pub fn restore_backup(args: RestoreArgs) -> Outcome {
    let opened = args.which.check()?;
    let keep = if args.keep_keys { Keep::Keys } else { Keep::Nothing };
    working(move || {
        let (source, id) = opened.source()?;
        // Before anything else: that it cannot be written must not be found out when all is done.
        let mut keys = args.master_key_out.map(KeyFile::create).transpose()?;
        let look = |unpacked: &Unpacked<'_>| {
            if let Some(live) = &args.compare {
                comparison::tell(&store::compare(unpacked.path, live)?, live)?;
            }
            // And without them it opens for nobody who has lost the master key: they are there before it is.
            keys.as_mut()
                .zip(unpacked.carried)
                .map_or(Ok(()), |(file, carried)| file.write(carried))
        };
        let by = By::system("command line");
        let restored = restore(&source, &opened.asked(id), &args.to, keep, look, by).map_err(advised)?;
        let is_kept = keys.is_some_and(KeyFile::keep);
        show(&restored.manifest)?;
        say_what_next(&restored, keep, is_kept)
    })
}

fn say_what_next(restored: &Restored, keep: Keep, is_kept: bool) -> Outcome {
    let path = restored.path.display();
    print(format_args!("restored to {path}"))?;
    if !is_kept && restored.carried.is_some() {
        let keys = restored.manifest.master_keys.join(", ");
        print(format_args!(
            "it opens with master key {keys}; if you do not have it, restore again with --master-key-out, which writes it to a file"
        ))?;
    }
    match keep {
        Keep::Nothing => print(format_args!(
            "its sessions and all its keys are ended: people sign in again, keys are rotated"
        ))?,
        Keep::Keys => print(format_args!("its sessions are ended; its keys are as they were"))?,
    }
    print(format_args!(
        "to switch: stop the server, move its database away together with the -wal, the -shm and, where there is one, the .lost-log beside it, put {path} in its place, start the server"
    ))
}

/// Runs it where the storage finds the runtime that it waits on.
pub fn working(work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    block_on(async { tokio::task::spawn_blocking(work).await? })
}

/// What opens an archive, and where it may be.
pub struct Opened {
    backup: String,
    storage: Option<Storage>,
    keyring: Option<Keyring>,
    identity: Option<Identity>,
}

impl Which {
    pub fn check(self) -> Result<Opened, Failure> {
        let mut faults = Faults::default();
        let settings = self.storage.check(&mut faults);
        let identity = self.identity.map(|path| read_identity(&path)).transpose()?;
        let keyring = if identity.is_some() {
            None
        } else {
            let args = StoreArgs {
                database_url: "sqlite:unused".to_owned(),
                master_key_file: self.master_key_file,
            };
            let config = StoreConfig::check(args, &Environment::of_process(), &mut faults);
            config.map(|config| config.keyring)
        };
        let settings = faults.finish(settings).map_err(Failure::Configuration)?;
        Ok(Opened {
            backup: self.backup,
            storage: settings.storage,
            keyring,
            identity,
        })
    }
}

impl Opened {
    pub fn source(&self) -> Result<(Stored, Option<Uuid>), Failure> {
        if let Ok(id) = self.backup.parse::<Uuid>() {
            let storage = storage(self.storage.clone())?;
            let backup = backup::list(&storage)?.into_iter().find(|backup| backup.id == id);
            let name = match backup {
                Some(backup) => backup.filename,
                None => {
                    exports(&storage)?
                        .into_iter()
                        .find(|export| export.id == id)
                        .ok_or(Error::Unknown)?
                        .filename
                }
            };
            return Ok((Stored { storage, name }, Some(id)));
        }
        let path = Path::new(&self.backup);
        let path = path.canonicalize();
        let path = path.with_context(|| format!("{}: neither the id of a backup nor a file", self.backup))?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(anyhow::anyhow!("{} is no file", self.backup).into());
        };
        let storage = Storage::Directory(folder.to_owned());
        let name = name.to_owned();
        Ok((Stored { storage, name }, None))
    }

    pub fn asked(&self, id: Option<Uuid>) -> Asked<'_> {
        Asked {
            id,
            keyring: self.keyring.as_ref(),
            identity: self.identity.as_ref(),
        }
    }
}

pub fn storage(storage: Option<Storage>) -> Result<Storage, Error> {
    storage.ok_or(Error::Disabled)
}

fn read_identity(path: &Path) -> anyhow::Result<Identity> {
    let content = files::read(path)?;
    let text = std::str::from_utf8(&content).ok();
    let identity = text.and_then(|text| text.parse().ok());
    identity.with_context(|| format!("{} holds no private key of age, `AGE-SECRET-KEY-1…`", path.display()))
}

/// What to do about an archive, where that is another one.
fn advised(error: Error) -> anyhow::Error {
    let is_damaged = matches!(error, Error::Damaged(_));
    let error = anyhow::Error::new(error);
    if is_damaged {
        return anyhow::anyhow!("{error}; use another one");
    }
    error
}

fn show(manifest: &Manifest) -> Outcome {
    print(format_args!(
        "backup {} of {}, of database {}, by version {}, schema {}: whole, and the database in it is sound and opens",
        manifest.backup,
        manifest.created_at,
        database_name(manifest.epoch),
        manifest.server,
        manifest.schema
    ))?;
    for (table, rows) in &manifest.counts {
        print(format_args!("  {table}: {rows}"))?;
    }
    Ok(())
}
