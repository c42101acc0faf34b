//! Where a value may be written below a mount: relative paths of safe segments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Most segments of a path and most bytes of one segment (253 is what every file system in use takes).
pub const MAX_SEGMENTS: usize = 8;
pub const MAX_SEGMENT_BYTES: usize = 253;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("must not be empty")]
    Empty,
    #[error("must have at most 8 segments")]
    TooDeep,
    #[error(
        "each segment between slashes must begin with a letter, digit or `_` and hold at most 253 letters, digits, `.`, `_` and `-`"
    )]
    BadSegment,
}

/// A relative path of safe segments: it can name nothing outside its directory and nothing that the writer keeps for
/// itself (names beginning with `..`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FilePath(String);

impl FilePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This path, as a folder, and a file name in it.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        format!("{}/{name}", self.0).parse()
    }

    /// The first segment: what the directory's top level shows.
    pub fn top(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// Whether one of the two is a folder on the way to the other, or both are one.
    pub fn collides_with(&self, other: &Self) -> bool {
        let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        self == other || inside(&self.0, &other.0) || inside(&other.0, &self.0)
    }
}

impl FromStr for FilePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.split('/').count() > MAX_SEGMENTS {
            return Err(PathError::TooDeep);
        }
        if text.split('/').all(is_segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PathError::BadSegment)
        }
    }
}

fn is_segment(segment: &str) -> bool {
    let first = segment
        .as_bytes()
        .first()
        .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    first && segment.len() <= MAX_SEGMENT_BYTES && segment.bytes().all(safe)
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_their_directory() {
        for good in ["a", "db.password", "tls/tls.crt", "_x/9-y", "a/b/c/d/e/f/g/h"] {
            assert!(good.parse::<FilePath>().is_ok(), "{good:?}");
        }
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".hidden", "..data", "a\0", "a b", "é", "-a",
        ] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?}");
        }
        assert_eq!("a/b/c/d/e/f/g/h/i".parse::<FilePath>(), Err(PathError::TooDeep));
        assert_eq!("a".repeat(254).parse::<FilePath>(), Err(PathError::BadSegment));
    }

    #[test]
    fn a_file_collides_with_its_own_folder() {
        let path = |text: &str| text.parse::<FilePath>().unwrap();
        assert!(path("a").collides_with(&path("a/b")));
        assert!(path("a/b").collides_with(&path("a")));
        assert!(path("a").collides_with(&path("a")));
        assert!(!path("a").collides_with(&path("ab")));
        assert!(!path("a/b").collides_with(&path("a/c")));
    }
}
