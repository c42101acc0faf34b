//! What can go wrong, in words that are safe to show.

use std::fmt;

/// Characters of a name that are shown; real ones are shorter.
const MAX_SHOWN: usize = 200;

/// Why a file could not be made of its values. Holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{} is not text, which this format needs: encode it in a template, as {{{{ secrets[\"…\"]|b64encode }}}}", Shown(.key))]
    NotText { key: String },
    #[error("{} holds a NUL character, which no variable can", Shown(.key))]
    Nul { key: String },
    #[error("{} and {} would both be the variable {variable}: name one of them otherwise", Shown(.first), Shown(.second))]
    Collision {
        variable: String,
        first: String,
        second: String,
    },
    #[error(
        "{} would be the variable {variable}, which changes how programs start: name the key literally if that is meant",
        Shown(.key)
    )]
    Refused { variable: String, key: String },
    #[error("the template is larger than {} KiB", crate::MAX_SOURCE_BYTES / 1024)]
    SourceTooLarge,
    #[error("the template writes more than {} KiB", crate::MAX_OUTPUT_BYTES / 1024)]
    OutputTooLarge,
    #[error("the template does too much work: it loops too often, or over too much text")]
    TooMuchWork,
    #[error("line {line} of the template: {map} has no {}; give it a `default`, or add the key", Shown(.key))]
    NoKey {
        line: usize,
        map: &'static str,
        key: String,
    },
    #[error("the template writes {}, which is not text: encode it with the filter b64encode", Shown(.key))]
    Binary { key: String },
    #[error("line {line} of the template: {what}")]
    Template { line: usize, what: String },
}

/// A name of unknown origin for a line of a log: quoted, escaped and cut.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_SHOWN) {
            Some((at, _)) => write!(f, "{:?}…", &self.0[..at]),
            None => write!(f, "{:?}", self.0),
        }
    }
}
