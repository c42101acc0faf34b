//! What depends on an image or a volume that cannot be looked into from here. Where it works a refusal would break it,
//! so it is a warning that says when it does not.

use std::fmt;

use super::super::denial::{Quoted, Taken};

/// As many as an answer has room for.
const MOST: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// A mount of the pod that meets ours where `/var/run` is a link to `/run`. Its volume is not named: that of the
    /// pod's token has another name in every pod, and the log would repeat the warning for each.
    Linked { at: String, what: Taken, path: String },
    /// Ours lies in a read-only mount, where there has to be a directory for it.
    ReadOnly {
        volume: String,
        at: String,
        what: Taken,
        path: String,
    },
    /// Two of ours that meet by the same link. In our own containers they do not, and so the files are written.
    Bindings {
        one: String,
        one_path: String,
        other: String,
        other_path: String,
    },
}

/// Doubts, each with the first container that it is about, and how many more there are.
#[derive(Debug, Default)]
pub struct Doubts(Vec<(Doubt, String, usize)>);

impl Doubts {
    pub fn add(&mut self, doubt: Doubt, container: &str) {
        let known = self.0.iter_mut().find(|(known, ..)| *known == doubt);
        if let Some((_, _, more)) = known {
            *more += 1;
        } else if self.0.len() < MOST {
            self.0.push((doubt, container.to_owned(), 0));
        }
    }

    /// For the person who makes the pod.
    pub fn warnings(self) -> impl Iterator<Item = String> {
        let all = self.0.into_iter();
        all.map(|(doubt, container, more)| doubt.told(&Containers(&container, more)))
    }
}

impl Doubt {
    fn told(&self, containers: &Containers<'_>) -> String {
        match self {
            Self::Linked { at, what, path } => format!(
                "{containers} may not start, or lack files, where the image links /var/run to /run: {what} at {} meets the \
                 mount at {}; set another mountPath",
                Quoted(path),
                Quoted(at)
            ),
            Self::ReadOnly { volume, at, what, path } => format!(
                "{containers} can start only if volume {}, which is read-only at {}, has a directory for {what} at {}; else set \
                 another mountPath",
                Quoted(volume),
                Quoted(at),
                Quoted(path)
            ),
            Self::Bindings {
                one,
                one_path,
                other,
                other_path,
            } => format!(
                "{containers} may not start, or lack files, where the image links /var/run to /run: SecretBinding {} at {} \
                 meets {} at {}; set another mountPath",
                Quoted(one),
                Quoted(one_path),
                Quoted(other),
                Quoted(other_path)
            ),
        }
    }
}

struct Containers<'a>(&'a str, usize);

impl fmt::Display for Containers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(one, 0) => write!(f, "container {}", Quoted(one)),
            Self(one, more) => write!(f, "container {} and {more} more", Quoted(one)),
        }
    }
}
