//! Programs that the bench starts, and that must not outlive it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::prerequisites;
use crate::process::Failure;

const STOP_WITHIN: Duration = Duration::from_secs(20);

/// `program`, which the kernel kills when this process ends, however it ends: by Ctrl-C, say.
pub fn command(program: &Path) -> Command {
    match prerequisites::find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start `{}`", crate::process::shown(command)))?;
        Ok(Self(child))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process has a number")?, signal)?)
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let began = Instant::now();
        while !self.has_ended() {
            if began.elapsed() > STOP_WITHIN {
                let seconds = STOP_WITHIN.as_secs();
                return Err(Failure::new(format!("process {} does not end within {seconds} s", self.pid())).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has of the machine's memory, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, with what it shares with other processes.
    pub resident: u64,
    /// Of that, what is of no file: all but the program itself.
    pub anonymous: u64,
    /// The most that was resident since it began.
    pub peak: u64,
    /// Resident, with its part of what it shares; zero where this process may not ask.
    pub proportional: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = read(pid, "status")?;
    // The kernel tells it only to those who may look into the process.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Ok(Memory {
        resident: kib(&status, "VmRSS:"),
        anonymous: kib(&status, "RssAnon:"),
        peak: kib(&status, "VmHWM:"),
        proportional: kib(&rollup, "Pss:"),
    })
}

/// Has the kernel count the peak anew from here on.
pub fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("cannot reset the peak of process {pid}"))
}

/// Open file descriptors.
pub fn files(pid: u32) -> Result<usize> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("process {pid} is gone"))?;
    Ok(entries.count())
}

/// The time that all of the machine's processors together have worked for it.
pub fn cpu(pid: u32) -> Result<Duration> {
    cpu_of(&read(pid, "stat")?).with_context(|| format!("/proc/{pid}/stat is not what is expected"))
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// Fields 14 and 15, user and system time. The name in field 2 may hold anything but ends with the last parenthesis.
fn cpu_of(stat: &str) -> Option<Duration> {
    /// What the kernel counts in towards programs, on every architecture that we run on.
    const TICKS_PER_SECOND: u64 = 100;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Duration::from_millis(
        (ticks(11)? + ticks(12)?) * 1_000 / TICKS_PER_SECOND,
    ))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_by_name() {
        let status = "Name:\tserver\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (10_240, 20_480));
        assert_eq!(kib("", "Pss:"), 0, "what may not be asked is not made up");
        assert!(memory(std::process::id()).unwrap().resident > 0);
    }

    #[test]
    fn the_time_of_a_process_is_read_behind_a_name_that_has_spaces_and_parentheses() {
        let stat = "7 (a) 1 (b)) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 100";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("7 (server) S 1"), None);
        assert!(cpu(std::process::id()).is_ok());
    }

    #[test]
    fn a_program_that_was_started_ends_with_its_guard() {
        let mut sleep = command(&prerequisites::find("sleep").unwrap());
        let running = Running::start(sleep.arg("60").stdin(Stdio::null())).unwrap();
        let process = format!("/proc/{}", running.pid());
        assert!(Path::new(&process).exists());
        drop(running);
        assert!(!Path::new(&process).exists());
        Running::start(sleep.stdin(Stdio::null())).unwrap().stop().unwrap();
    }
}
