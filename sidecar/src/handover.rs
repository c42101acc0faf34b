//! The state beside the files: what the init container leaves for the sidecar, and how the startup probe knows that
//! the gate is open. Holds no secret; written only when everything that pods wait for is there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sealpod_core::Time;
use sealpod_core::injection::{HAND_OVER_FILE, HandOver};

/// Writes the state, whole or not at all.
pub fn write(mount: &Path, state: &HandOver) -> io::Result<()> {
    let temporary = mount.join(format!("{HAND_OVER_FILE}.tmp"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new` follows no link.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(state).expect("the state is plain data with text keys"))?;
    drop(file);
    fs::rename(&temporary, mount.join(HAND_OVER_FILE))
}

/// The state and when it was written; none where there is none that this version understands.
pub fn read(mount: &Path) -> Option<(HandOver, Time)> {
    let path = mount.join(HAND_OVER_FILE);
    let content = sealpod_runtime::files::read(&path).ok()?;
    let state = serde_json::from_slice(&content).ok()?;
    let written = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
    let written = jiff::Timestamp::try_from(written).ok()?;
    Some((state, Time::from_timestamp(written)))
}

/// Says that the files are still what the server has, as of now.
pub fn touch(mount: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(mount.join(HAND_OVER_FILE))?;
    file.set_modified(std::time::SystemTime::now())
}

/// Nobody vouches for the files any more.
pub fn remove(mount: &Path) -> io::Result<()> {
    match fs::remove_file(mount.join(HAND_OVER_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether everything that pods wait for is there.
pub fn is_open(mount: &Path) -> bool {
    read(mount).is_some() && mount.join("..data").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn state() -> HandOver {
        serde_json::from_value(serde_json::json!({
            "etag": "e", "nextChangeAt": null, "versions": {"a": 1}, "settled": true, "denied": false,
            "binding": {"organization": "o", "project": "p", "environment": "e", "mode": 288, "refreshInterval": 30, "watch": true},
        }))
        .unwrap()
    }

    #[test]
    fn the_state_survives_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_none() && !is_open(dir.path()));
        // A killed process left a half-written one, and somebody a trap.
        symlink("/nonexistent/target", dir.path().join(format!("{HAND_OVER_FILE}.tmp"))).unwrap();
        write(dir.path(), &state()).unwrap();
        write(dir.path(), &state()).unwrap();
        assert_eq!(read(dir.path()).unwrap().0, state());
        let mode = fs::metadata(dir.path().join(HAND_OVER_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!is_open(dir.path()), "a state without files opens no gate");
        fs::create_dir(dir.path().join("..data")).unwrap();
        assert!(is_open(dir.path()));
    }

    #[test]
    fn a_state_can_be_said_again_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(touch(dir.path()).is_err(), "there is nothing to say again");
        write(dir.path(), &state()).unwrap();
        let path = dir.path().join(HAND_OVER_FILE);
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        touch(dir.path()).unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap() > long_ago);
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(read(dir.path()).is_none());
    }

    #[test]
    fn a_state_that_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(HAND_OVER_FILE), "{").unwrap();
        assert!(read(dir.path()).is_none());
    }
}
