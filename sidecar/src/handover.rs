//! The state beside the files: what the init container leaves for the sidecar, and how the startup probe knows that
//! the gate is open. Holds no secret; written only when everything that pods wait for is there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use sealpod_core::injection::{BindingFile, HAND_OVER_FILE, HandOver};
use sha2::{Digest, Sha256};

/// What stands for a binding in the state: templates are too large for it.
pub fn digest(binding: &BindingFile) -> String {
    let text = serde_json::to_vec(binding).expect("settings are plain data with text keys");
    HEXLOWER.encode(&Sha256::digest(text))
}

/// Writes the state, whole or not at all. One of more bytes than `limit` is written without what takes them, so that
/// the next process fetches anew.
pub fn write(mount: &Path, state: &HandOver, limit: u64) -> io::Result<()> {
    let mut content = serde_json::to_vec(state).expect("the state is plain data with text keys");
    if u64::try_from(content.len()).is_ok_and(|bytes| bytes > limit) {
        let bare = HandOver {
            etag: String::new(),
            settings: String::new(),
            versions: std::collections::BTreeMap::new(),
            settled: false,
            ..state.clone()
        };
        content = serde_json::to_vec(&bare).expect("the state is plain data with text keys");
    }
    let temporary = mount.join(format!("{HAND_OVER_FILE}.tmp"));
    remove_file(&temporary)?;
    // `create_new` follows no link.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&content)?;
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

/// There from before a change until the app knows of it, so that a process that dies between the two loses no news.
const UNTOLD_FILE: &str = "..sealpod-untold";

pub fn mark_untold(mount: &Path) -> io::Result<()> {
    let path = mount.join(UNTOLD_FILE);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

pub fn is_untold(mount: &Path) -> bool {
    fs::symlink_metadata(mount.join(UNTOLD_FILE)).is_ok()
}

pub fn mark_told(mount: &Path) -> io::Result<()> {
    remove_file(&mount.join(UNTOLD_FILE))
}

/// Nobody vouches for the files any more.
pub fn remove(mount: &Path) -> io::Result<()> {
    remove_file(&mount.join(HAND_OVER_FILE))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
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
            "settings": "00",
        }))
        .unwrap()
    }

    #[test]
    fn the_state_survives_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_none() && !is_open(dir.path()));
        // A killed process left a half-written one, and somebody a trap.
        symlink("/nonexistent/target", dir.path().join(format!("{HAND_OVER_FILE}.tmp"))).unwrap();
        write(dir.path(), &state(), 1024).unwrap();
        write(dir.path(), &state(), 1024).unwrap();
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
        write(dir.path(), &state(), 1024).unwrap();
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
    fn a_state_that_does_not_fit_opens_the_gate_and_vouches_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut large = state();
        large.versions = (0..1_000).map(|n| (format!("key-{n}"), n)).collect();
        write(dir.path(), &large, 1024).unwrap();
        assert!(fs::metadata(dir.path().join(HAND_OVER_FILE)).unwrap().len() <= 1024);
        let (read, _) = read(dir.path()).unwrap();
        assert!(!read.settled && read.versions.is_empty() && read.settings.is_empty());
    }

    #[test]
    fn a_state_of_a_former_version_is_one_and_vouches_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let former = r#"{"etag": "e", "binding": {"mode": 288}, "nextChangeAt": null, "versions": {"a": 1}}"#;
        fs::write(dir.path().join(HAND_OVER_FILE), former).unwrap();
        assert!(!read(dir.path()).unwrap().0.settled);
    }

    #[test]
    fn a_state_that_is_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(HAND_OVER_FILE), "{").unwrap();
        assert!(read(dir.path()).is_none());
    }
}
