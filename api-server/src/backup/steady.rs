//! Large files that are written while others commit.

use std::fs::File;
use std::io::{self, Write};

/// Bytes between two flushes: a millisecond or two of most disks.
const STEP: usize = 256 * 1024;

/// A file that reaches the disk as it is written. Flushed all at once at its end, it would keep whoever commits on the same
/// disk meanwhile waiting until all of it is there, and with them everybody whose read has to be in the audit log.
#[derive(Debug)]
pub(super) struct Steady {
    file: File,
    unflushed: usize,
}

impl Steady {
    pub(super) fn new(file: File) -> Self {
        Self { file, unflushed: 0 }
    }

    /// All of it is on the disk.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unflushed += written;
        if self.unflushed >= STEP {
            self.file.sync_data()?;
            self.unflushed = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
