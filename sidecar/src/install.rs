//! The sidecar's own binary, for a container of the pod that runs its command under `exec`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Its name there, which makes it take its arguments as `exec` does.
pub const NAME: &str = "exec";
/// Everybody may run it.
const MODE: u32 = 0o555;

/// Copies the running program into `directory`. One that is there stays: it is in use, and of this pod's own image.
pub fn own_binary(directory: &Path) -> io::Result<()> {
    let target = directory.join(NAME);
    if target.exists() {
        return Ok(());
    }
    let temporary = directory.join(format!("..{NAME}"));
    let mut from = File::open("/proc/self/exe")?;
    let mut to = File::create(&temporary)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(Permissions::from_mode(MODE))?;
    // Closed before anybody can run it: a file that is open for writing cannot be.
    drop(to);
    fs::rename(temporary, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_this_program_and_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        // A process that was killed half-way.
        fs::write(dir.path().join("..exec"), "half").unwrap();
        own_binary(dir.path()).unwrap();
        own_binary(dir.path()).unwrap();
        let copy = dir.path().join(NAME);
        let length = |path: &Path| fs::metadata(path).unwrap().len();
        assert_eq!(length(&copy), length(&std::env::current_exe().unwrap()));
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, MODE);
        let listed = std::process::Command::new(&copy).arg("--list").output().unwrap();
        assert!(listed.status.success());
    }
}
