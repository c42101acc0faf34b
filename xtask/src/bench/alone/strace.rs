//! How often a process waits for the disk, as the kernel sees it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::super::child::{self, Running};
use crate::prerequisites;
use crate::process::Failure;

const ATTACHED_WITHIN: Duration = Duration::from_secs(10);
/// Until it holds every thread of the process.
const SETTLE: Duration = Duration::from_millis(500);

/// Counts `fdatasync` and `fsync` of the process while `work` goes on; none without strace.
pub fn flushes(pid: u32, directory: &Path, work: impl FnOnce() -> Result<()>) -> Result<Option<u64>> {
    let Some(program) = prerequisites::find("strace") else {
        return Ok(None);
    };
    let (log, table) = (directory.join("strace.log"), directory.join("strace.txt"));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = child::command(&program);
    command
        .args(["-f", "-c", "-e", "trace=fdatasync,fsync", "-o"])
        .arg(&table);
    command
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(output);
    let mut running = Running::start(&mut command)?;
    let began = Instant::now();
    while !fs::read_to_string(&log).unwrap_or_default().contains("attached") {
        if running.has_ended() || began.elapsed() > ATTACHED_WITHIN {
            return Err(Failure::new("strace cannot look at the server").log(&log).into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(SETTLE);
    work()?;
    running.signal(Signal::INT)?;
    // Its table is there when it has ended; that it was interrupted is no fault.
    running.0.wait()?;
    let text = fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    Ok(Some(["fdatasync", "fsync"].iter().map(|name| calls(&text, name)).sum()))
}

/// How often strace's table says that `name` was called.
fn calls(table: &str, name: &str) -> u64 {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of_name = rows.filter(|row| row.last() == Some(&name));
    of_name.find_map(|row| row.get(3)?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_with_and_without_errors_beside_them() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     90.00    0.000123           6        20           fdatasync\n \
                     10.00    0.000013          13         1         1 fsync\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000136           6        21         1 total\n";
        assert_eq!(calls(table, "fdatasync"), 20);
        assert_eq!(calls(table, "fsync"), 1);
        assert_eq!(calls("", "fsync"), 0, "what was never called has no row");
    }
}
