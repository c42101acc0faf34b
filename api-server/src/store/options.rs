//! How the store is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Meters, OpenError};

#[derive(Debug, Clone)]
pub struct Options {
    /// The database; `-wal`, `-shm`, `.lock` and `.reserve` come to stand beside it.
    pub path: PathBuf,
    /// Whether room is kept on its disk for the last entries of the audit log: for a server.
    pub reserve: bool,
    /// What else than a database of this version may be at the path.
    pub admit: Admit,
    /// Whether an older schema is kept beside it, in a copy, before it is brought up to date.
    pub keep_copy: bool,
    /// Threads that read.
    pub readers: usize,
    /// How many changes and how many reads may wait; behind that, callers wait for room.
    pub queue: usize,
    /// How long one read may take; none: as long as it takes. While somebody reads, the write-ahead log cannot begin anew.
    pub read_time: Option<Duration>,
    /// How often the last use of accounts is written down.
    pub use_interval: Duration,
    /// Where it keeps what it measures.
    pub meters: Meters,
    /// Told of every statement that a request runs; for tests.
    pub trace: Option<Trace>,
}

/// What there may be of a database before it is opened; anything else is an error, and nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admit {
    /// A database of this version's schema.
    Current,
    /// An older one too, which is brought up to date.
    Older,
    /// None too: one is made.
    None,
}

/// Hears the text of each statement as it begins, with its parameters' names and never their values. It runs on the
/// thread of the statement, so it must be quick.
#[derive(Clone)]
pub struct Trace(Arc<dyn Fn(&str) + Send + Sync>);

impl Trace {
    pub fn new(hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn hear(&self, sql: &str) {
        (self.0)(sql);
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl Options {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            path: path.into(),
            reserve: false,
            admit: Admit::None,
            keep_copy: true,
            readers: cores.clamp(2, 4),
            queue: 1024,
            // The longest reads of a server, of lists without a limit, take a second or two.
            read_time: Some(Duration::from_secs(10)),
            use_interval: Duration::from_mins(1),
            meters: Meters::default(),
            trace: None,
        }
    }

    /// From `sqlite:<path>`, also written `sqlite://<path>`.
    pub fn from_url(url: &str) -> Result<Self, OpenError> {
        let path = url
            .strip_prefix("sqlite:")
            .map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        match path {
            Some(path) if !path.is_empty() && !path.contains(['?', '\0']) => Ok(Self::new(path)),
            _ => Err(OpenError::NotAUrl { given: scheme_of(url) }),
        }
    }
}

/// What may be shown of a URL that was not understood: it could hold a password.
fn scheme_of(url: &str) -> String {
    url.split_once(':')
        .map_or_else(|| url.to_owned(), |(scheme, _)| format!("{scheme}:…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file() {
        for (url, path) in [
            ("sqlite:sealpod.db", "sealpod.db"),
            ("sqlite:/var/lib/sealpod.db", "/var/lib/sealpod.db"),
            ("sqlite:///var/lib/sealpod.db", "/var/lib/sealpod.db"),
        ] {
            assert_eq!(Options::from_url(url).unwrap().path, PathBuf::from(path));
        }
    }

    #[test]
    fn another_database_is_refused_without_its_password() {
        for url in [
            "",
            "sqlite:",
            "sqlite://",
            "sealpod.db",
            "sqlite:a?mode=ro",
            "postgres://me:canary@host/db",
        ] {
            let error = Options::from_url(url).unwrap_err().to_string();
            assert!(
                error.contains("sqlite:/var/lib") && !error.contains("canary"),
                "{error}"
            );
        }
    }
}
