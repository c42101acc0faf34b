//! Which file is made of what. Looks at names only.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::Pattern;
use sealpod_core::injection::{BindingFile, CombinedFile, ConfigurationFiles, Decode, Format, SecretFile, Select};
use sealpod_core::names::check_secret_key;
use sealpod_core::paths::FilePath;
use sealpod_core::wire::bundle::Bundle;

use super::{Finding, Trouble};

/// Permission bits of a file; set-user-ID and the like make no sense on a secret.
const MODE_BITS: u32 = 0o777;

/// What a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Secret {
        key: String,
        decode: Option<Decode>,
    },
    Configuration(String),
    /// Every configuration in one file.
    Configurations(Format),
    /// The entry of the binding's `files` with this index.
    Combined(usize),
}

impl Source {
    /// The key, where it is one secret.
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::Secret { key, .. } => Some(key),
            Self::Configuration(_) | Self::Configurations(_) | Self::Combined(_) => None,
        }
    }

    /// What people know it by.
    pub fn selector<'a>(&'a self, path: &'a FilePath) -> &'a str {
        match self {
            Self::Secret { key, .. } | Self::Configuration(key) => key,
            Self::Configurations(_) | Self::Combined(_) => path.as_str(),
        }
    }
}

/// A file that the directory is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub source: Source,
    pub path: FilePath,
    pub mode: u32,
    /// Whether pods have to wait for it.
    pub required: bool,
    /// Whether the answer holds a value of it; without one, a file that is already there stays.
    pub present: bool,
}

/// What goes where, and what is wrong; looks at names only. What the binding spells out comes before what patterns match,
/// and what comes first has a path.
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
    for entry in binding.secrets.iter().flatten() {
        if let Select::Name(name) = &entry.select {
            resolver.named(name, entry);
        }
    }
    for (index, file) in binding.files.iter().enumerate() {
        resolver.combined(index, file);
    }
    if let Some(configurations) = &binding.configurations {
        resolver.configurations(configurations);
    }
    match &binding.secrets {
        None => bundle.secrets.keys().for_each(|key| resolver.matched(key, None)),
        Some(entries) => {
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
    /// Each path that has a file, and what that is made of.
    taken: BTreeMap<String, Source>,
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
            source: Source::Secret {
                key: name.to_owned(),
                decode: entry.decode,
            },
            path,
            mode: entry.mode.unwrap_or(self.binding.mode) & MODE_BITS,
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
            if self.taken.values().all(|source| source.secret() != Some(key)) {
                self.find(key, Trouble::NeedsPath, false);
            }
            return;
        };
        self.place(Target {
            source: Source::Secret {
                key: key.to_owned(),
                decode: entry.and_then(|entry| entry.decode),
            },
            path,
            mode: entry.and_then(|entry| entry.mode).unwrap_or(self.binding.mode) & MODE_BITS,
            required: false,
            present: true,
        });
    }

    /// A file of several values. The app was promised it, so pods wait for it.
    fn combined(&mut self, index: usize, file: &CombinedFile) {
        self.place(Target {
            source: Source::Combined(index),
            path: file.path.clone(),
            mode: file.mode.unwrap_or(self.binding.mode) & MODE_BITS,
            required: true,
            present: true,
        });
    }

    fn configurations(&mut self, configurations: &ConfigurationFiles) {
        let bundle = self.bundle;
        let mode = self.binding.mode & MODE_BITS;
        let target = |source, path| Target {
            source,
            path,
            mode,
            required: true,
            present: true,
        };
        if let Some(format) = configurations.format {
            self.place(target(Source::Configurations(format), configurations.path.clone()));
            return;
        }
        for key in bundle.configurations.keys() {
            let path = file_name(key).and_then(|name| configurations.path.join(name.as_str()).ok());
            match path {
                Some(path) => self.place(Target {
                    required: false,
                    ..target(Source::Configuration(key.clone()), path)
                }),
                None => self.find(key, Trouble::NeedsPath, false),
            }
        }
    }

    fn place(&mut self, target: Target) {
        let path = target.path.as_str();
        let parents = || path.match_indices('/').map(|(at, _)| &path[..at]);
        let same = |source: &Source| source.secret().is_some() && source.secret() == target.source.secret();
        if self.taken.get(path).is_some_and(same) {
            // Named and matched, or matched twice: one file, as first asked for.
            return;
        }
        if self.taken.contains_key(path)
            || self.folders.contains(path)
            || parents().any(|folder| self.taken.contains_key(folder))
        {
            let selector = target.source.selector(&target.path).to_owned();
            return self.find(&selector, Trouble::PathTaken(target.path.clone()), target.required);
        }
        self.folders.extend(parents().map(str::to_owned));
        self.taken.insert(path.to_owned(), target.source.clone());
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
