//! A small file system of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Volume {
    /// Of the file that it is in, and of the place where it is mounted.
    folder: tempfile::TempDir,
    is_ext4: bool,
}

impl Volume {
    /// A file system of so many MiB: ext4 in a file, or one in memory where this kernel or container has no loop devices.
    pub fn new(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let make = run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-N", "512"])
            .arg(&image));
        let looped = make.and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)));
        let is_ext4 = looped.is_ok();
        if let Err(why) = looped {
            eprintln!("no ext4 in a file can be mounted here ({why}); a file system in memory stands in for it");
            let size = format!("size={mib}m");
            let memory = run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(&at));
            memory.unwrap_or_else(|why| {
                panic!("no file system can be mounted here ({why}), and without a small one nothing is known of full disks: run the tests as root, or under `unshare --user --map-root-user --mount`")
            });
        }
        Self { folder, is_ext4 }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Takes all of its room but so many bytes, by a file of this name.
    pub fn fill(&self, name: &str, but: u64) {
        let path = self.path().join(name);
        let all = available(&self.path()).saturating_sub(but);
        // What the file system needs for itself is known to itself only.
        for bytes in (0..=all).rev().step_by(16 * 1024) {
            let taken = Command::new("fallocate")
                .args(["-l", &bytes.max(1).to_string()])
                .arg(&path)
                .output();
            if taken.unwrap().status.success() {
                return;
            }
        }
        // There was nothing left to take.
        File::create(path).unwrap();
    }

    pub fn free(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// As a kernel does that finds its file system damaged: from here on nothing can be written. False where this one
    /// cannot be made to.
    pub fn become_read_only(&self) -> bool {
        self.is_ext4 && run(Command::new("mount").args(["-o", "remount,abort"]).arg(self.path())).is_ok()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}

/// What a process may still take.
pub fn available(path: &Path) -> u64 {
    let volume = rustix::fs::statvfs(path).unwrap();
    volume.f_bavail * volume.f_frsize
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
