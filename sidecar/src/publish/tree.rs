//! Directories by descriptor: every name is looked up in a directory that is already open, and no link is followed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// tmpfs hands out whole pages.
const PAGE: u64 = 4096;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What `bytes` of content take of a tmpfs.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * PAGE
}

pub(super) fn open_directory(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Opens the folder that `path` lies in, segment by segment, making the folders that are not there; gives it and the
/// last segment.
pub(super) fn enter(root: impl AsFd, path: &str) -> Result<(OwnedFd, &str), Errno> {
    let mut folder = open_directory(root, ".")?;
    let mut rest = path;
    while let Some((segment, tail)) = rest.split_once('/') {
        match rustix::fs::mkdirat(&folder, segment, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        folder = open_directory(&folder, segment)?;
        rest = tail;
    }
    Ok((folder, rest))
}

/// Makes a file that must not be there yet, with its final mode and group before its first byte is.
pub(super) fn create(root: impl AsFd, path: &str, mode: u32, content: &[u8]) -> Result<(), Errno> {
    let (folder, name) = enter(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
    own_group(&file)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(RawMode::from(mode)))?;
    File::from(file).write_all(content).map_err(|error| as_errno(&error))
}

/// Gives a file or directory to the process's own group. It has it already, but where the pod has an `fsGroup`: then
/// the volume's set-group-ID bit has given it that one.
pub(super) fn own_group(file: impl AsFd) -> Result<(), Errno> {
    let group = rustix::process::getegid();
    if Gid::from_raw(rustix::fs::fstat(&file)?.st_gid) != group {
        rustix::fs::fchown(&file, None, Some(group))?;
    }
    Ok(())
}

/// A file's permission bits and content, opened without following a link at any step.
pub(super) fn read(root: impl AsFd, path: &str, limit: u64) -> Result<(u32, Zeroizing<Vec<u8>>), Errno> {
    let mut folder = open_directory(root, ".")?;
    let mut rest = path;
    while let Some((segment, tail)) = rest.split_once('/') {
        folder = open_directory(&folder, segment)?;
        rest = tail;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, rest, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > limit {
        return Err(Errno::FBIG);
    }
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(size).map_err(|_| Errno::FBIG)? + 1));
    File::from(file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|error| as_errno(&error))?;
    Ok((Mode::from_raw_mode(stat.st_mode).bits(), content))
}

/// An entry of a directory.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: FileType,
}

/// The entries of a directory, without `.` and `..`. Names that are no UTF-8 are none of ours and are left out.
pub(super) fn entries(directory: impl AsFd) -> Result<Vec<Entry>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push(Entry {
            name: name.to_owned(),
            kind,
        });
    }
    Ok(found)
}

/// Every file below a directory, as a path from it, and what they take of a tmpfs together.
pub(super) fn files(directory: impl AsFd) -> Result<(Vec<String>, u64), Errno> {
    let (mut paths, mut size) = (Vec::new(), 0);
    collect(directory, "", &mut paths, &mut size)?;
    Ok((paths, size))
}

fn collect(directory: impl AsFd, prefix: &str, paths: &mut Vec<String>, size: &mut u64) -> Result<(), Errno> {
    for entry in entries(&directory)? {
        let path = format!("{prefix}{}", entry.name);
        if entry.kind == FileType::Directory {
            collect(
                open_directory(&directory, &entry.name)?,
                &format!("{path}/"),
                paths,
                size,
            )?;
        } else {
            let stat = rustix::fs::statat(&directory, entry.name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            *size += pages(u64::try_from(stat.st_size).unwrap_or(0));
            paths.push(path);
        }
    }
    Ok(())
}

/// Gives a directory and all directories below it their final mode and group.
pub(super) fn open_up(directory: impl AsFd, mode: Mode) -> Result<(), Errno> {
    for entry in entries(&directory)? {
        if entry.kind == FileType::Directory {
            open_up(open_directory(&directory, &entry.name)?, mode)?;
        }
    }
    own_group(&directory)?;
    rustix::fs::fchmod(&directory, mode)
}

/// Removes a directory and all that is in it; one that is not there is no error.
pub(super) fn remove(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    let directory = match open_directory(&parent, name) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries(&directory)? {
        if entry.kind == FileType::Directory {
            remove(&directory, &entry.name)?;
        } else {
            rustix::fs::unlinkat(&directory, entry.name.as_str(), AtFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

/// Removes a file or link; one that is not there is no error.
pub(super) fn unlink(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a link points; none where it is not there or no link.
pub(super) fn link_target(parent: impl AsFd, name: &str) -> Result<Option<String>, Errno> {
    match rustix::fs::readlinkat(parent, name, Vec::new()) {
        Ok(target) => Ok(target.into_string().ok()),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes `name` a link to `target`, by one rename, so that the name is never absent in between.
pub(super) fn link(parent: impl AsFd, target: &str, name: &str, temporary: &str) -> Result<(), Errno> {
    unlink(&parent, temporary)?;
    rustix::fs::symlinkat(target, &parent, temporary)?;
    rustix::fs::renameat(&parent, temporary, &parent, name)
}

fn as_errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
