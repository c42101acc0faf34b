//! Small files that someone else replaces: keys, certificates, settings.
//!
//! Kubernetes replaces the files of a volume by swapping a symbolic link, which a watch on the file itself does not
//! survive; so the content is read every few seconds and compared by its hash.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How often watchers look. The kubelet itself takes up to 90 s to refresh a volume.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Largest file that is read, in bytes: far above any key, certificate chain or binding.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    #[error("{} is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    #[error("{} cannot be read: {cause}", .path.display())]
    Io { path: PathBuf, cause: io::ErrorKind },
}

/// The content of one file, wiped when dropped.
pub type Content = Result<Zeroizing<Vec<u8>>, Unreadable>;

/// Reads a whole file of at most [`MAX_FILE_BYTES`].
pub fn read(path: &Path) -> Content {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Absent(path.to_owned()),
        cause => Unreadable::Io {
            path: path.to_owned(),
            cause,
        },
    };
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let size = file.metadata().map_err(|e| failed(&e))?.len();
    if size > MAX_FILE_BYTES {
        return Err(Unreadable::TooLarge(path.to_owned()));
    }
    // Room for the whole file and one byte more, so that no copy is left behind by growing.
    let room = usize::try_from(size).expect("at most 1 MiB") + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut content)
        .map_err(|e| failed(&e))?;
    Ok(content)
}

/// A fixed list of files, and the hash of what was last given out.
#[derive(Debug)]
pub struct FileSet {
    paths: Vec<PathBuf>,
    seen: Option<[u8; 32]>,
    looked: Option<Instant>,
}

impl FileSet {
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            seen: None,
            looked: None,
        }
    }

    /// The contents now, in the order of the paths.
    pub fn read(&mut self) -> Vec<Content> {
        let (contents, hash) = self.look();
        self.seen = Some(hash);
        self.looked = Some(Instant::now());
        contents
    }

    /// Waits until a content differs from what was last given out, and gives out all of them; a file that comes, goes
    /// or becomes unreadable is a change too. Looks every `interval`, counted from the last look, so that a caller who
    /// cancels this and comes back, however often, misses none.
    pub async fn changed(&mut self, interval: Duration) -> Vec<Content> {
        loop {
            let due = *self.looked.get_or_insert_with(Instant::now) + interval;
            tokio::time::sleep_until(due).await;
            if let Some(contents) = self.poll() {
                return contents;
            }
        }
    }

    /// One look: the contents if they differ from what was last given out.
    ///
    /// Reads of a few small local files are not worth a thread; they block for microseconds.
    pub fn poll(&mut self) -> Option<Vec<Content>> {
        self.looked = Some(Instant::now());
        let (_, first) = self.look();
        if self.seen == Some(first) {
            return None;
        }
        // A swap between two reads would give the old file of one and the new of another; so only a state that is
        // seen twice counts, and any other waits for the next look.
        let (contents, second) = self.look();
        if first != second {
            return None;
        }
        self.seen = Some(second);
        Some(contents)
    }

    fn look(&self) -> (Vec<Content>, [u8; 32]) {
        let mut hash = Sha256::new();
        let mut contents = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let content = read(path);
            match &content {
                Ok(bytes) => {
                    hash.update([1]);
                    hash.update(u64::try_from(bytes.len()).expect("at most 1 MiB").to_be_bytes());
                    hash.update(bytes);
                }
                Err(error) => {
                    hash.update([0]);
                    hash.update(error.to_string());
                    hash.update([0]);
                }
            }
            contents.push(content);
        }
        (contents, hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_swapped_directory_is_seen_as_one_change() {
        let dir = tempfile::tempdir().unwrap();
        let swap = |generation: &str| {
            let target = dir.path().join(generation);
            fs::create_dir(&target).unwrap();
            fs::write(target.join("a"), generation).unwrap();
            fs::write(target.join("b"), generation).unwrap();
            symlink(generation, dir.path().join("..tmp")).unwrap();
            fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        };
        swap("one");
        let mut files = FileSet::new(["a", "b"].map(|name| dir.path().join("..data").join(name)));
        let text = |contents: Vec<Content>| -> Vec<String> {
            contents
                .into_iter()
                .map(|c| String::from_utf8(c.unwrap().to_vec()).unwrap())
                .collect()
        };
        assert_eq!(text(files.read()), ["one", "one"]);
        assert!(files.poll().is_none());
        swap("two");
        assert_eq!(text(files.poll().unwrap()), ["two", "two"]);
        assert!(files.poll().is_none());
    }

    #[test]
    fn a_file_that_goes_is_a_change_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "x").unwrap();
        let mut files = FileSet::new([path.clone()]);
        assert!(files.read()[0].is_ok());
        fs::remove_file(&path).unwrap();
        assert_eq!(files.poll().unwrap()[0], Err(Unreadable::Absent(path.clone())));
        assert!(files.poll().is_none(), "told once");
    }

    #[tokio::test]
    async fn a_caller_that_is_always_interrupted_still_sees_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        let mut files = FileSet::new([path.clone()]);
        files.read();
        fs::write(&path, "new").unwrap();
        let interval = Duration::from_millis(100);
        let mut seen = None;
        for _ in 0..50 {
            seen = tokio::time::timeout(interval / 10, files.changed(interval)).await.ok();
            if seen.is_some() {
                break;
            }
        }
        assert_eq!(seen.expect("noticed").remove(0).unwrap().as_slice(), b"new");
    }

    #[test]
    fn contents_that_only_move_between_files_are_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "12").unwrap();
        fs::write(&b, "3").unwrap();
        let mut files = FileSet::new([a.clone(), b.clone()]);
        files.read();
        fs::write(&a, "1").unwrap();
        fs::write(&b, "23").unwrap();
        assert!(files.poll().is_some());
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(&path), Err(Unreadable::TooLarge(path)));
    }
}
