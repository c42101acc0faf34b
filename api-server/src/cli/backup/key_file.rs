//! The file of `--master-key-out`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;

use crate::backup::Error;
use crate::crypto::Keyring;
use crate::store;

/// A file for master keys. It is gone when this is dropped, unless it has some and is kept.
pub struct KeyFile {
    path: PathBuf,
    file: File,
    is_written: bool,
    is_kept: bool,
}

impl KeyFile {
    pub fn create(path: PathBuf) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file =
            made.with_context(|| format!("cannot write {}; name a file that is not there yet", path.display()))?;
        Ok(Self {
            path,
            file,
            is_written: false,
            is_kept: false,
        })
    }

    /// Returns once they survive a power cut.
    pub fn write(&mut self, keyring: &Keyring) -> Result<(), Error> {
        let written = self.file.write_all(keyring.export().as_bytes());
        let kept = written
            .and_then(|()| self.file.sync_all())
            .and_then(|()| store::sync_folder(&self.path));
        kept.map_err(|cause| {
            let path = self.path.display();
            Error::Io(io::Error::other(format!(
                "cannot write the master keys to {path}, so nothing was restored; check the disk and try again: {cause}"
            )))
        })?;
        self.is_written = true;
        Ok(())
    }

    /// The database that they open has its name. Answers whether they are there.
    pub fn keep(mut self) -> bool {
        self.is_kept = self.is_written;
        self.is_kept
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            eprintln!(
                "sealpod-api-server: {} could not be removed, and may hold master keys; remove it: {error}",
                self.path.display()
            );
        }
    }
}
