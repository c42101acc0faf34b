//! The admin key: from a file that is re-read when it changes and may hold two keys while one replaces the other, or
//! from the environment.

use std::path::PathBuf;
use std::time::Duration;

use sealpod_runtime::files::{Content, FileSet, Unreadable};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Shortest admin key, in characters.
pub const MIN_CHARACTERS: usize = 32;
/// Most keys that are valid at a time.
const MAX_KEYS: usize = 2;

/// Why no admin key could be taken. Never quotes one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminKeyError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the admin key must be text of visible ASCII characters")]
    NotText,
    #[error("the admin key must have at least 32 characters; `openssl rand -hex 32` makes one")]
    TooShort,
    #[error("the admin key file must hold one key, or two on two lines")]
    Count,
}

type Digests = Vec<[u8; 32]>;

/// The admin keys that are valid now, as hashes, so that comparing takes the same time whatever is presented.
#[derive(Debug)]
pub struct AdminKeys(watch::Sender<Digests>);

impl AdminKeys {
    pub fn new(text: &[u8]) -> Result<Self, AdminKeyError> {
        Ok(Self(watch::Sender::new(parse(text)?)))
    }

    pub fn accept(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let accepted = self
            .0
            .borrow()
            .iter()
            .fold(Choice::from(0), |found, key| found | key.ct_eq(&presented));
        accepted.into()
    }

    /// Tells of every change of the keys from now on.
    pub fn subscribe(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    /// Follows the file until `shutdown`. Content that cannot be taken is logged, and the keys stay as they are.
    pub async fn watch(&self, mut file: FileSet, interval: Duration, shutdown: CancellationToken) {
        while let Some(contents) = shutdown.run_until_cancelled(file.changed(interval)).await {
            match first(contents).and_then(|content| parse(&content)) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), "read the admin key file again");
                    self.0.send_replace(keys);
                }
                Err(error) => tracing::error!(
                    %error,
                    "the admin key file changed and cannot be used; the keys before it stay valid until it is mended"
                ),
            }
        }
    }
}

/// Waits for the admin keys to change.
pub struct Changes(watch::Receiver<Digests>);

impl Changes {
    /// Returns at the next change; never, if there cannot be one any more. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The keys of a file, and what [`AdminKeys::watch`] follows.
pub fn load(path: PathBuf) -> Result<(AdminKeys, FileSet), AdminKeyError> {
    let mut file = FileSet::new([path]);
    let keys = AdminKeys::new(&first(file.read())?)?;
    Ok((keys, file))
}

fn first(contents: Vec<Content>) -> Result<zeroize::Zeroizing<Vec<u8>>, AdminKeyError> {
    Ok(contents.into_iter().next().expect("one file was asked for")?)
}

fn parse(text: &[u8]) -> Result<Digests, AdminKeyError> {
    let lines: Vec<&[u8]> = text
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect();
    if !(1..=MAX_KEYS).contains(&lines.len()) {
        return Err(AdminKeyError::Count);
    }
    lines
        .into_iter()
        .map(|line| match line {
            _ if !line.iter().all(u8::is_ascii_graphic) => Err(AdminKeyError::NotText),
            _ if line.len() < MIN_CHARACTERS => Err(AdminKeyError::TooShort),
            _ => Ok(Sha256::digest(line).into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one-one-one-one-one-one-one-one-one";
    const TWO: &str = "two-two-two-two-two-two-two-two-two";

    #[test]
    fn one_or_two_long_keys_are_taken() {
        let keys = AdminKeys::new(format!("{ONE}\r\n\n{TWO}\n").as_bytes()).unwrap();
        assert!(keys.accept(ONE) && keys.accept(TWO));
        assert!(!keys.accept("") && !keys.accept(&ONE[1..]) && !keys.accept(&format!("{ONE} ")));
        for (text, error) in [
            (String::new(), AdminKeyError::Count),
            (format!("{ONE}\n{TWO}\n{ONE}"), AdminKeyError::Count),
            (ONE[..31].to_owned(), AdminKeyError::TooShort),
            (format!("{ONE} {ONE}"), AdminKeyError::NotText),
        ] {
            assert_eq!(AdminKeys::new(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_changes_the_keys_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.key");
        std::fs::write(&path, ONE).unwrap();
        let (keys, file) = load(path.clone()).unwrap();
        let keys = std::sync::Arc::new(keys);
        let mut changes = keys.subscribe();
        let shutdown = CancellationToken::new();
        let (watched, stop) = (keys.clone(), shutdown.clone());
        let task = tokio::spawn(async move { watched.watch(file, Duration::from_millis(5), stop).await });

        std::fs::write(&path, "short").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(keys.accept(ONE));

        std::fs::write(&path, format!("{TWO}\n{ONE}\n")).unwrap();
        changes.changed().await;
        assert!(keys.accept(ONE) && keys.accept(TWO));

        std::fs::write(&path, TWO).unwrap();
        changes.changed().await;
        assert!(!keys.accept(ONE) && keys.accept(TWO));
        shutdown.cancel();
        task.await.unwrap();
    }
}
