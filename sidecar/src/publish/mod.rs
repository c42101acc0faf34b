//! Puts a set of files into a directory that others read, in such a way that a reader sees all of the old set or all
//! of the new one. The protocol is that of the kubelet's own volumes, so programs that watch those work here too:
//!
//! ```text
//! password   -> ..data/password            what the app opens
//! tls        -> ..data/tls
//! ..data     -> ..2026_01_31_12_00_00.0    renamed over: the swap
//! ..2026_01_31_12_00_00.0/password         a generation: written once, never changed
//! ..2026_01_31_12_00_00.0/tls/key.pem
//! ```

mod steps;
#[cfg(test)]
mod tests;
mod tree;

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use sealpod_core::Time;
use sealpod_core::paths::FilePath;
use zeroize::Zeroizing;

use crate::clock;

/// Kept free for the state beside the files, of which there are two while it is replaced: this part of the volume, but
/// so many bytes at least and at most.
const RESERVED_PART: u64 = 64;
const MIN_RESERVE: u64 = 4 * 4096;
const MAX_RESERVE: u64 = 32 * 4096;
/// Shortest time between two tries to remove a former generation.
const RETRY_REMOVE: Duration = Duration::from_secs(1);
/// The kernel dates files by its last tick, up to so long ago.
const COARSE: Duration = Duration::from_millis(10);
/// The link that is swapped, and the names it and the others are made under.
const DATA: &str = "..data";
const DATA_TEMPORARY: &str = "..data_tmp";
const LINK_TEMPORARY: &str = "..link_tmp";
/// Every container may enter; what it may read is up to the files' own modes.
const DIRECTORY_MODE: Mode = Mode::RWXU
    .union(Mode::RGRP)
    .union(Mode::XGRP)
    .union(Mode::ROTH)
    .union(Mode::XOTH);

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: FilePath,
    pub mode: u32,
    pub content: Content,
}

/// Bytes of a secret: wiped when dropped, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A file to carry over from the generation before, because its value cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: FilePath,
    pub mode: u32,
}

/// All files that the directory is to show; anything else in it goes. No two paths may collide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSet {
    pub write: Vec<File>,
    pub keep: Vec<Kept>,
}

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whether readers see anything new.
    pub changed: bool,
    /// Files of the set, those carried over included.
    pub files: usize,
    /// Files that were to be carried over and are not there.
    pub lost: Vec<FilePath>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(
        "the files need {needed} bytes, but the volume takes {usable}: half of its size limit, because a change holds \
         old and new; raise spec.sizeLimit of the SecretBinding, or select less"
    )]
    TooLarge { needed: u64, usable: u64 },
    #[error("cannot {doing} {}: {cause}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        cause: Errno,
    },
    #[error("cannot write the state beside the files: {0}")]
    State(std::io::Error),
}

impl PublishError {
    /// Without the names of files, which are those of secrets.
    pub fn outline(&self) -> String {
        match self {
            Self::TooLarge { .. } | Self::State(_) => self.to_string(),
            Self::Io { doing, cause, .. } => format!("cannot {doing} a file: {cause}; the log names it"),
        }
    }
}

/// A generation that is no longer shown.
#[derive(Debug)]
struct Former {
    name: String,
    size: u64,
    /// When it goes.
    until: Instant,
}

/// The one writer of a directory.
#[derive(Debug)]
pub struct Publisher {
    root: OwnedFd,
    path: PathBuf,
    size_limit: u64,
    /// How long a reader that has just looked `..data` up still finds the files it leads to.
    grace: Duration,
    former: Vec<Former>,
    /// When this process swapped last, as time since the node started.
    swapped: Option<Duration>,
    /// The paths of the set that this process published last, sorted.
    published: Option<Vec<String>>,
    #[cfg(test)]
    crash_before: Option<Step>,
}

/// The points between two of which a crash must do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Make,
    Write,
    OpenUp,
    Swap,
    Link,
    Unlink,
    Done,
}

impl Publisher {
    /// `size_limit` is that of the volume, in bytes. Generations that a killed process left are dated from now.
    pub fn open(path: &Path, size_limit: u64, grace: Duration) -> Result<Self, PublishError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|cause| failed("open", path.to_owned())(cause))?;
        let mut publisher = Self {
            root,
            path: path.to_owned(),
            size_limit,
            grace,
            former: Vec::new(),
            swapped: None,
            published: None,
            #[cfg(test)]
            crash_before: None,
        };
        publisher.adopt_leftovers()?;
        Ok(publisher)
    }

    /// Makes the directory show exactly this set. In steps, of which any may be the last of a killed process:
    ///
    /// 1. Add up the set; more than half of the volume is an error, and nothing changes.
    /// 2. Read what is to be carried over, and where the current generation is this set already, go to 7.
    /// 3. Make a new generation, which nothing leads to yet and only this process can enter.
    /// 4. Write the files into it, each with its mode and group before its content.
    /// 5. Let readers enter its directories.
    /// 6. Rename a link to it over `..data`: the swap, which readers see whole or not at all.
    /// 7. Link each top-level name that is new to the same name below `..data`.
    /// 8. Remove the top-level links that lead to nothing.
    /// 9. Date the generation before; [`Publisher::sweep`] removes it when its grace is over.
    ///
    /// A crash before 6 leaves the old set shown and a generation that the next process removes; one behind 6 leaves
    /// links that the next call, which runs 7 and 8 in any case, puts right.
    pub fn publish(&mut self, mut set: FileSet) -> Result<Published, PublishError> {
        let former = self.current()?;
        let lost = self.carry_over(&mut set, former.as_deref())?;
        let size: u64 = set.write.iter().map(|file| weight(file.content.0.len())).sum();
        if size > self.usable() {
            return Err(PublishError::TooLarge {
                needed: size,
                usable: self.usable(),
            });
        }
        let changed = !self.shows(&set, former.as_deref())?;
        if changed {
            self.swap(&set)?;
        }
        let linked = self.link_names(&set);
        if changed {
            self.swapped = Some(clock::now());
        }
        linked?;
        let mut paths: Vec<_> = set.write.iter().map(|file| file.path.as_str().to_owned()).collect();
        paths.sort_unstable();
        self.published = Some(paths);
        if changed && let Some(name) = former {
            self.retire(name)?;
        }
        self.reach(Step::Done);
        Ok(Published {
            changed,
            files: set.write.len(),
            lost,
        })
    }

    /// How long to wait until there is room for `set` beside the generations that readers may still use. Zero but
    /// where large sets follow each other closely.
    pub fn wait_for_room(&self, set: &FileSet, now: Instant) -> Result<Duration, PublishError> {
        let current = self.current_size()?;
        let new: u64 = set.write.iter().map(|file| weight(file.content.0.len())).sum();
        let kept = if set.keep.is_empty() { 0 } else { current };
        let mut used =
            self.reserve() + current + new + kept + self.former.iter().map(|former| former.size).sum::<u64>();
        let mut wait = Duration::ZERO;
        for former in &self.former {
            if used <= self.size_limit {
                break;
            }
            used -= former.size;
            wait = former.until.saturating_duration_since(now);
        }
        Ok(wait)
    }

    /// Removes the generations whose grace is over; gives how long until the next one's is.
    pub fn sweep(&mut self, now: Instant) -> Result<Option<Duration>, PublishError> {
        while let Some(first) = self.former.first() {
            if first.until > now {
                return Ok(Some(first.until - now));
            }
            let mut gone = self.former.remove(0);
            if let Err(cause) = tree::remove(&self.root, &gone.name) {
                let error = self.failed("remove", &gone.name)(cause);
                // Not now, then; but neither in a tight loop.
                gone.until = now + self.grace.max(RETRY_REMOVE);
                self.former.push(gone);
                return Err(error);
            }
        }
        Ok(None)
    }

    /// How long until [`Publisher::sweep`] has something to do.
    pub fn next_sweep(&self, now: Instant) -> Option<Duration> {
        self.former
            .first()
            .map(|first| first.until.saturating_duration_since(now))
    }

    /// What tells one set that is shown from the next; none where none is shown.
    pub fn shown(&self) -> Option<String> {
        self.current().ok()?
    }

    /// When the set that is shown was written; none where none is shown.
    pub fn shown_since(&self) -> Option<Time> {
        let name = self.current().ok()??;
        let written = std::fs::symlink_metadata(self.path.join(name)).and_then(|meta| meta.modified());
        jiff::Timestamp::try_from(written.ok()?).ok().map(Time::from_timestamp)
    }

    /// Since when readers find the set that is shown, as time since the node started: by this process's own clock, or
    /// else by the date of the link that was swapped. Rather too late than too early, and now where nothing tells.
    pub fn swapped(&self) -> Duration {
        let dated = || {
            let link = std::fs::symlink_metadata(self.path.join(DATA)).ok()?;
            let date = Duration::new(link.ctime().try_into().ok()?, link.ctime_nsec().try_into().ok()?);
            Some(clock::at(SystemTime::UNIX_EPOCH + date + COARSE))
        };
        self.swapped.or_else(dated).unwrap_or_else(clock::now)
    }

    /// Whether readers still find every file of the set that is shown. Nobody else should write here; what somebody
    /// who can has removed would stay away until the next change of a value.
    pub fn is_intact(&self) -> bool {
        self.find_all().unwrap_or(false)
    }

    fn find_all(&self) -> Result<bool, Errno> {
        let Ok(Some(name)) = self.current() else {
            return Ok(false);
        };
        let (mut paths, _) = tree::files(tree::open_directory(&self.root, &name)?)?;
        paths.sort_unstable();
        if self.published.as_ref().is_some_and(|published| *published != paths) {
            return Ok(false);
        }
        for path in &paths {
            let name = path.split_once('/').map_or(path.as_str(), |(top, _)| top);
            if tree::link_target(&self.root, name)?.is_none_or(|target| target != below_data(name)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes that one set may take.
    pub fn usable(&self) -> u64 {
        self.size_limit.saturating_sub(self.reserve()) / 2
    }

    /// Bytes that the state beside the files may take.
    pub fn state_limit(&self) -> u64 {
        self.reserve() / 2
    }

    fn reserve(&self) -> u64 {
        (self.size_limit / RESERVED_PART).clamp(MIN_RESERVE, MAX_RESERVE)
    }

    /// The directory that `..data` leads to; none where it leads nowhere of ours.
    fn current(&self) -> Result<Option<String>, PublishError> {
        let target = tree::link_target(&self.root, DATA).map_err(self.failed("read", DATA))?;
        let Some(name) = target.filter(|name| is_generation(name)) else {
            return Ok(None);
        };
        match tree::open_directory(&self.root, &name) {
            Ok(_) => Ok(Some(name)),
            Err(Errno::NOENT) => Ok(None),
            Err(cause) => Err(self.failed("open", &name)(cause)),
        }
    }

    fn current_size(&self) -> Result<u64, PublishError> {
        self.current()?.map_or(Ok(0), |name| self.size_of(&name))
    }

    fn size_of(&self, name: &str) -> Result<u64, PublishError> {
        tree::open_directory(&self.root, name)
            .and_then(tree::files)
            .map(|(_, size)| size)
            .map_err(self.failed("read", name))
    }

    fn failed(&self, doing: &'static str, name: &str) -> impl Fn(Errno) -> PublishError + use<> {
        failed(doing, self.path.join(name))
    }

    #[cfg(test)]
    fn reach(&self, step: Step) {
        assert!(self.crash_before != Some(step), "killed before {step:?}");
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)] // the shape of its twin, which a test dies in
    fn reach(&self, _: Step) {}
}

fn failed(doing: &'static str, path: PathBuf) -> impl Fn(Errno) -> PublishError {
    move |cause| PublishError::Io {
        doing,
        path: path.clone(),
        cause,
    }
}

/// `..` and a digit: `..data` and the sidecar's own files are none.
fn is_generation(name: &str) -> bool {
    let stamp = name.strip_prefix("..").unwrap_or_default();
    stamp.starts_with(|c: char| c.is_ascii_digit()) && !stamp.contains('/')
}

/// Where the top-level link of that name leads.
fn below_data(name: &str) -> String {
    format!("{DATA}/{name}")
}

fn weight(bytes: usize) -> u64 {
    tree::pages(u64::try_from(bytes).expect("a length fits 64 bits"))
}
