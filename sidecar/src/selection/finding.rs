//! What is wrong with what a binding selects, in words for people.

use std::fmt;

use sealpod_core::paths::FilePath;

/// Characters of a name that are shown; real ones are shorter.
const MAX_SHOWN: usize = 256;

/// What is wrong with one selected secret, or one file of several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The environment has no live, active value under that name.
    Missing,
    /// The account may not read it.
    Denied,
    /// A pattern that must match something matches nothing.
    NoMatch,
    /// The name is no file name, and the binding gives no path.
    NeedsPath,
    /// Another entry has that path, or a folder on the way to it.
    PathTaken(FilePath),
    /// The binding also names it in another version, and one answer holds one version of a name.
    OtherVersion,
    /// Its text is not the base64 that the binding says it is.
    NotBase64,
    /// A file of several values includes it, and `secrets` does not.
    NotSelected,
    /// A file of several values, or of the configurations, cannot be made of them; the text says why.
    Unmade(String),
}

impl Trouble {
    /// Without a name: for those who may ask, but not know what there is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "without a value",
            Self::Denied => "refused",
            Self::NoMatch => "matching nothing",
            Self::NeedsPath => "without a file name",
            Self::PathTaken(_) => "with a path that is taken",
            Self::OtherVersion => "in two versions",
            Self::NotBase64 => "not base64",
            Self::NotSelected => "included and not selected",
            Self::Unmade(_) => "that cannot be made",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("has no active value in this environment: set one"),
            Self::Denied => f.write_str("is refused to this binding's account: check its access rules"),
            Self::NoMatch => f.write_str("matches no secret, and is not optional"),
            Self::NeedsPath => f.write_str("is no file name: give the entry a `path`"),
            Self::PathTaken(path) => write!(f, "wants the path {}, which another entry has", path.as_str()),
            Self::OtherVersion => f.write_str("is named twice with different versions: keep one"),
            Self::NotBase64 => f.write_str("is not base64, which `decode` says it is"),
            Self::NotSelected => f.write_str("is included in a file, but not among `secrets`: add it there"),
            Self::Unmade(why) => write!(f, "cannot be made: {why}"),
        }
    }
}

/// A trouble and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The name of a secret, a pattern, or the path of a file of several values.
    pub selector: String,
    pub trouble: Trouble,
    /// Whether pods have to wait until it is put right.
    pub required: bool,
}

impl Finding {
    pub fn is_required(&self) -> bool {
        self.required
    }
}

/// Names come from the server and go to logs and terminals: they are quoted, escaped and cut.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = match self.selector.char_indices().nth(MAX_SHOWN) {
            Some((at, _)) => (&self.selector[..at], "…"),
            None => (self.selector.as_str(), ""),
        };
        write!(f, "{shown:?}{rest} {}", self.trouble)
    }
}
