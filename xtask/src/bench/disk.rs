//! How long the disk takes to have something for certain, which bounds every write.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::load::Measured;

const FLUSHES: usize = 200;
/// A page of the database.
const SIZE: usize = 4096;

/// The times of `fdatasync` behind a write of one page to the end of a file in `directory`.
pub fn flushes(directory: &Path) -> Result<Measured> {
    let path = directory.join("flush.tmp");
    let measure = || -> std::io::Result<Measured> {
        let mut file = File::create(&path)?;
        let began = Instant::now();
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            file.write_all(&[0x5a; SIZE])?;
            let began = Instant::now();
            file.sync_data()?;
            times.push(began.elapsed());
        }
        Ok(Measured::of(times, began.elapsed()))
    };
    let measured = measure().with_context(|| format!("cannot write {}", path.display()));
    let _ = fs::remove_file(&path);
    measured
}
