//! What a binding asks for, and what becomes of the answer. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::BASE64;
use sealpod_core::injection::{BindingFile, Decode, SecretFile, Select};
use sealpod_core::names::check_secret_key;
use sealpod_core::paths::FilePath;
use sealpod_core::wire::bundle::{Bundle, BundleRequest, BundleSecret, PinnedVersion};
use sealpod_core::{Pattern, SecretValue};
use zeroize::Zeroizing;

use crate::publish::{Content, File, FileSet, Kept};

/// Permission bits of a file; set-user-ID and the like make no sense on a secret.
const MODE_BITS: u32 = 0o777;
/// Characters of a name that are shown; real ones are shorter.
const MAX_SHOWN: usize = 256;

/// The query that fetches everything a binding names. A pinned name is asked for by its version alone.
pub fn request(binding: &BindingFile) -> BundleRequest {
    let mut request = BundleRequest::default();
    for entry in binding.secrets.iter().flatten() {
        match (&entry.select, entry.version) {
            (Select::Name(name), None) => push_new(&mut request.key, name.clone()),
            // The server takes one pin a key; that the first counts is told by `resolve`.
            (Select::Name(name), Some(version)) if request.version.iter().all(|pin| pin.key != *name) => {
                request.version.push(PinnedVersion {
                    key: name.clone(),
                    version,
                });
            }
            (Select::Name(_), Some(_)) => {}
            (Select::Pattern(pattern), _) => push_new(&mut request.pattern, pattern.clone()),
        }
    }
    request
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// What is wrong with one selected secret.
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
        }
    }
}

/// A trouble and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The name of a secret, or a pattern.
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

/// A secret and the file that it is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub key: String,
    pub path: FilePath,
    pub mode: u32,
    pub decode: Option<Decode>,
    /// Whether pods have to wait for it.
    pub required: bool,
    /// Whether the answer holds a value of it; without one, a file that is already there stays.
    pub present: bool,
}

/// What a bundle makes of a binding: every file that the directory is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub files: FileSet,
    /// Of the files to keep, those that pods have to wait for.
    pub required: BTreeSet<FilePath>,
    /// Sorted, so that the same state reads the same.
    pub findings: Vec<Finding>,
    /// Version of each secret that is written.
    pub versions: BTreeMap<String, u64>,
}

impl Selection {
    /// Whether something that pods have to wait for can never be had as things are, however the directory looks.
    pub fn blocked(&self) -> bool {
        let kept =
            |finding: &Finding| matches!(finding.trouble, Trouble::Missing | Trouble::Denied | Trouble::NotBase64);
        self.findings.iter().any(|finding| finding.required && !kept(finding))
    }
}

/// Turns an answer into files.
///
/// A required name without a value, or a value that cannot be decoded, keeps the file it has; an optional name that is
/// missing or denied loses it.
pub fn select(binding: &BindingFile, bundle: &Bundle) -> Selection {
    let (targets, mut findings) = resolve(binding, bundle);
    let mut selection = Selection {
        files: FileSet::default(),
        required: BTreeSet::new(),
        findings: Vec::new(),
        versions: BTreeMap::new(),
    };
    for target in targets {
        let secret = bundle.secrets.get(&target.key).filter(|_| target.present);
        let content = secret.and_then(|secret| content(secret, target.decode));
        match (secret, content) {
            (Some(secret), Some(content)) => {
                selection.versions.insert(target.key, secret.version);
                selection.files.write.push(File {
                    path: target.path,
                    mode: target.mode,
                    content: Content(content),
                });
            }
            (secret, _) => {
                if secret.is_some() {
                    findings.push(Finding {
                        selector: target.key,
                        trouble: Trouble::NotBase64,
                        required: target.required,
                    });
                }
                if target.required {
                    selection.required.insert(target.path.clone());
                }
                selection.files.keep.push(Kept {
                    path: target.path,
                    mode: target.mode,
                });
            }
        }
    }
    findings.sort_unstable();
    selection.findings = findings;
    selection
}

/// The bytes to write; none where the text does not hold them.
fn content(secret: &BundleSecret, decode: Option<Decode>) -> Option<Zeroizing<Vec<u8>>> {
    let value = SecretValue::from_wire(secret.value.as_ref()?, secret.encoding.unwrap_or_default()).ok()?;
    match decode {
        None => Some(value.into_bytes()),
        Some(Decode::Base64) => {
            // Tools wrap base64 and end it with a line end.
            let mut text = Zeroizing::new(Vec::with_capacity(value.expose().len()));
            text.extend(value.expose().iter().filter(|byte| !byte.is_ascii_whitespace()));
            let bytes = Zeroizing::new(BASE64.decode(&text).ok()?);
            (!bytes.is_empty()).then_some(bytes)
        }
    }
}

/// Which secret goes where, and what is wrong; looks at names only. Literal names come before patterns, and what comes
/// first has a path.
pub fn resolve(binding: &BindingFile, bundle: &Bundle) -> (Vec<Target>, Vec<Finding>) {
    let mut resolver = Resolver {
        binding,
        bundle,
        targets: Vec::new(),
        findings: Vec::new(),
        taken: BTreeMap::new(),
        folders: BTreeSet::new(),
        versions: BTreeMap::new(),
    };
    match &binding.secrets {
        None => bundle.secrets.keys().for_each(|key| resolver.matched(key, None)),
        Some(entries) => {
            for entry in entries {
                if let Select::Name(name) = &entry.select {
                    resolver.named(name, entry);
                }
            }
            for entry in entries {
                if let Select::Pattern(pattern) = &entry.select {
                    resolver.pattern(pattern, entry);
                }
            }
        }
    }
    (resolver.targets, resolver.findings)
}

struct Resolver<'a> {
    binding: &'a BindingFile,
    bundle: &'a Bundle,
    targets: Vec<Target>,
    findings: Vec<Finding>,
    /// Each path that has a file, and the secret it is of.
    taken: BTreeMap<String, String>,
    /// Each folder on the way to one.
    folders: BTreeSet<String>,
    /// The version that each literal name was first named with.
    versions: BTreeMap<&'a str, Option<u64>>,
}

impl<'a> Resolver<'a> {
    fn named(&mut self, name: &'a str, entry: &SecretFile) {
        let required = !entry.optional;
        if *self.versions.entry(name).or_insert(entry.version) != entry.version {
            return self.find(name, Trouble::OtherVersion, required);
        }
        let Some(path) = entry.path.clone().or_else(|| file_name(name)) else {
            return self.find(name, Trouble::NeedsPath, required);
        };
        let present = self.bundle.secrets.contains_key(name);
        if !present {
            let denied = self.bundle.denied.iter().any(|denied| denied == name);
            self.find(name, if denied { Trouble::Denied } else { Trouble::Missing }, required);
            if !required {
                return;
            }
        }
        self.place(Target {
            key: name.to_owned(),
            path,
            mode: entry.mode.unwrap_or(self.binding.mode) & MODE_BITS,
            decode: entry.decode,
            required,
            present,
        });
    }

    fn pattern(&mut self, pattern: &Pattern, entry: &SecretFile) {
        let bundle = self.bundle;
        let mut matches = bundle.secrets.keys().filter(|key| pattern.matches(key)).peekable();
        if matches.peek().is_none() && !entry.optional {
            self.find(pattern.as_str(), Trouble::NoMatch, true);
        }
        matches.for_each(|key| self.matched(key, Some(entry)));
    }

    /// A key that a pattern matches, or one of "all keys": nobody named it, so nobody waits for it.
    fn matched(&mut self, key: &str, entry: Option<&SecretFile>) {
        let folder = entry.and_then(|entry| entry.path.as_ref());
        let path = match folder {
            Some(folder) => file_name(key).and_then(|name| folder.join(name.as_str()).ok()),
            None => file_name(key),
        };
        let Some(path) = path else {
            // With a path of its own it is in good hands.
            if self.taken.values().all(|owner| owner != key) {
                self.find(key, Trouble::NeedsPath, false);
            }
            return;
        };
        self.place(Target {
            key: key.to_owned(),
            path,
            mode: entry.and_then(|entry| entry.mode).unwrap_or(self.binding.mode) & MODE_BITS,
            decode: entry.and_then(|entry| entry.decode),
            required: false,
            present: true,
        });
    }

    fn place(&mut self, target: Target) {
        let path = target.path.as_str();
        let parents = || path.match_indices('/').map(|(at, _)| &path[..at]);
        if self.taken.get(path) == Some(&target.key) {
            // Named and matched, or matched twice: one file, as first asked for.
            return;
        }
        if self.taken.contains_key(path)
            || self.folders.contains(path)
            || parents().any(|folder| self.taken.contains_key(folder))
        {
            return self.find(&target.key, Trouble::PathTaken(target.path.clone()), target.required);
        }
        self.folders.extend(parents().map(str::to_owned));
        self.taken.insert(path.to_owned(), target.key.clone());
        self.targets.push(target);
    }

    fn find(&mut self, selector: &str, trouble: Trouble, required: bool) {
        let finding = Finding {
            selector: selector.to_owned(),
            trouble,
            required,
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// A key that obeys the organization plane's rule is its own file name; any other is never mangled into one.
fn file_name(key: &str) -> Option<FilePath> {
    check_secret_key(key).ok()?;
    key.parse().ok()
}

#[cfg(test)]
mod tests;
