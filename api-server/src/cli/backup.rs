//! `backup create|list|verify|restore`: on the files themselves, beside a running server or without one.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use sealpod_core::wire::backups::Trigger;
use sealpod_runtime::files;
use uuid::Uuid;

use super::maintain::print;
use super::serve::block_on;
use super::{Failure, Outcome};
use crate::audit::By;
use crate::backup::{
    Asked, Error, Identity, Keep, Manifest, Recipient, Storage, Stored, exports, list, restore, verify, write_archive,
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

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    storage: StorageArgs,
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
    let (store, settings) = faults.finish(store.zip(settings)).map_err(Failure::Configuration)?;
    let mut all = settings.recipients;
    all.extend(recipients.unwrap_or_default());
    working(move || {
        let storage = storage(settings.storage)?;
        let database = store.options.path.canonicalize();
        let database = database.with_context(|| format!("{} is not there", store.options.path.display()))?;
        let from = (&*database, &store.keyring);
        let made = write_archive(Uuid::now_v7(), &storage, from, &all, Trigger::Command)?;
        print(format_args!(
            "{} {} ({} bytes), opened and checked",
            made.id, made.filename, made.size_bytes
        ))
    })
}

pub fn list_backups(args: ListArgs) -> Outcome {
    let mut faults = Faults::default();
    let settings = args.storage.check(&mut faults);
    let settings = faults.finish(settings).map_err(Failure::Configuration)?;
    working(move || {
        for backup in list(&storage(settings.storage)?)? {
            print(format_args!(
                "{} {} {} bytes, {}, under master key {}",
                backup.id,
                backup.created_at,
                backup.size_bytes,
                backup.trigger.as_str(),
                backup.key_id
            ))?;
        }
        Ok(())
    })
}

pub fn verify_backup(args: VerifyArgs) -> Outcome {
    let opened = args.which.check()?;
    working(move || {
        let (source, id) = opened.source()?;
        let manifest = verify(&source, &opened.asked(id), &args.scratch)?;
        show(&manifest)
    })
}

pub fn restore_backup(args: RestoreArgs) -> Outcome {
    let opened = args.which.check()?;
    let keep = if args.keep_keys { Keep::Keys } else { Keep::Nothing };
    working(move || {
        let (source, id) = opened.source()?;
        let compare = args.compare.as_deref();
        let look = |restored: &Path| compare.map_or(Ok(()), |live| Ok(tell(&store::compare(restored, live)?)?));
        let by = By::system("command line");
        let restored = restore(&source, &opened.asked(id), &args.to, keep, look, by)?;
        show(&restored.manifest)?;
        if let (Some(file), Some(carried)) = (&args.master_key_out, &restored.carried) {
            write_keys(file, carried)?;
        }
        let path = restored.path.display();
        print(format_args!("restored to {path}"))?;
        match keep {
            Keep::Nothing => print(format_args!(
                "its sessions and all its keys are ended: people sign in again, keys are rotated"
            ))?,
            Keep::Keys => print(format_args!("its sessions are ended; its keys are as they were"))?,
        }
        print(format_args!(
            "to switch: stop the server, move its database away together with the -wal and -shm beside it, put {path} in its place, start the server"
        ))
    })
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
            let backup = list(&storage)?.into_iter().find(|backup| backup.id == id);
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

fn write_keys(file: &Path, keyring: &Keyring) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut made =
        made.with_context(|| format!("cannot write {}; name a file that is not there yet", file.display()))?;
    made.write_all(keyring.export().as_bytes())?;
    made.sync_all()?;
    Ok(())
}

fn show(manifest: &Manifest) -> Outcome {
    print(format_args!(
        "backup {} of {}, by version {}, schema {}: whole, and everything in it opens",
        manifest.backup, manifest.created_at, manifest.server, manifest.schema
    ))?;
    for (table, rows) in &manifest.counts {
        print(format_args!("  {table}: {rows}"))?;
    }
    Ok(())
}

fn tell(comparison: &store::Comparison) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    for (what, lines) in [
        ("the backup revives", &comparison.revives),
        ("the backup lacks", &comparison.lacks),
    ] {
        writeln!(output, "{what}: {}", if lines.is_empty() { "nothing" } else { "" })?;
        for line in lines {
            writeln!(output, "  {line}")?;
        }
    }
    Ok(())
}
