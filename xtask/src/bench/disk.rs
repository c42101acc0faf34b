//! How long the disk takes to have something for certain, which bounds every write.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figures::{milliseconds, percentile, shown};

const FLUSHES: usize = 200;
/// A page of the database.
const SIZE: usize = 4096;
/// Half of all flushes take at most so long on the disk that the bars are for.
const QUICK: Duration = Duration::from_micros(500);

/// The times of `fdatasync`, the shortest first.
#[derive(Debug)]
pub struct Flushes(Vec<Duration>);

impl Flushes {
    /// Behind a write of one page each to the end of a file in `directory`.
    pub fn measure(directory: &Path) -> Result<Self> {
        let path = directory.join("flush.tmp");
        let measure = || -> std::io::Result<Self> {
            let mut file = File::create(&path)?;
            let mut times = Vec::with_capacity(FLUSHES);
            for _ in 0..FLUSHES {
                file.write_all(&[0x5a; SIZE])?;
                let began = Instant::now();
                file.sync_data()?;
                times.push(began.elapsed());
            }
            Ok(Self::of(times))
        };
        let measured = measure().with_context(|| format!("cannot write {}", path.display()));
        let _ = fs::remove_file(&path);
        measured
    }

    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Whether times that wait for the disk are judged.
    pub fn are_quick(&self) -> bool {
        percentile(&self.0, 50) <= QUICK
    }

    pub fn describe(&self) -> String {
        let [p50, p99] = [50, 99].map(|percent| shown(milliseconds(percentile(&self.0, percent))));
        format!("fdatasync p50 {p50} ms, p99 {p99} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_quick_by_the_half_of_its_flushes() {
        let flushes = |micros: [u64; 3]| Flushes::of(micros.map(Duration::from_micros).to_vec());
        assert!(flushes([500, 9_000, 100]).are_quick());
        assert!(!flushes([501, 100, 9_000]).are_quick());
        assert_eq!(
            flushes([400, 100, 9_000]).describe(),
            "fdatasync p50 0.40 ms, p99 9.0 ms"
        );
    }
}
