//! What a binding asks for, and what becomes of the answer. Pure.

mod combined;
mod finding;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use sealpod_core::SecretValue;
use sealpod_core::injection::{BindingFile, Decode, Select, Stale};
use sealpod_core::paths::FilePath;
use sealpod_core::wire::bundle::{Bundle, BundleRequest, BundleSecret, PinnedVersion};
use zeroize::Zeroizing;

use crate::publish::{Content, File, FileSet, Kept};
use combined::{Members, Unmade};
pub use finding::{Finding, Trouble};
pub use resolve::{Source, Target, resolve};

/// The query that fetches everything a binding names. A pinned name is asked for by its version alone.
pub fn request(binding: &BindingFile) -> BundleRequest {
    let mut request = BundleRequest {
        configurations: binding.configurations.is_some(),
        ..BundleRequest::default()
    };
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
    /// Whether a right to something that pods wait for is missing.
    pub denied: bool,
    /// Whether a file that pods wait for goes, because that right does.
    pub withheld: bool,
}

impl Selection {
    /// Whether something that pods have to wait for can never be had as things are, however the directory looks.
    pub fn blocked(&self) -> bool {
        let kept = |finding: &Finding| {
            matches!(
                finding.trouble,
                Trouble::Missing | Trouble::Denied | Trouble::NotBase64 | Trouble::NotSelected | Trouble::Unmade(_)
            )
        };
        self.withheld || self.findings.iter().any(|finding| finding.required && !kept(finding))
    }
}

/// Turns an answer into files.
///
/// A required name without a value, a value that cannot be decoded and a file that cannot be made keep the file that is
/// there; an optional name that is missing or denied loses it. Under `then: Remove`, what a right is missing for loses
/// its file, too.
pub fn select(binding: &BindingFile, bundle: &Bundle) -> Selection {
    let (targets, findings) = resolve(binding, bundle);
    // Combined files need every value at once; without them, one is in memory at a time.
    let values = if binding.files.is_empty() {
        BTreeMap::new()
    } else {
        combined::values(bundle)
    };
    let members = Members::of(binding, bundle, &values);
    let mut maker = Maker {
        binding,
        bundle,
        members,
        selection: Selection {
            files: FileSet::default(),
            required: BTreeSet::new(),
            denied: findings
                .iter()
                .any(|finding| finding.required && finding.trouble == Trouble::Denied),
            findings,
            versions: BTreeMap::new(),
            withheld: false,
        },
    };
    for target in targets {
        maker.take(target);
    }
    let mut selection = maker.selection;
    selection.findings.sort_unstable();
    selection.findings.dedup();
    selection
}

struct Maker<'a> {
    binding: &'a BindingFile,
    bundle: &'a Bundle,
    members: Members<'a>,
    selection: Selection,
}

impl Maker<'_> {
    fn take(&mut self, target: Target) {
        match self.make(&target) {
            Ok(content) => self.selection.files.write.push(File {
                path: target.path,
                mode: target.mode,
                content: Content(content),
            }),
            Err(unmade) => self.keep(target, unmade),
        }
    }

    fn make(&mut self, target: &Target) -> Result<Zeroizing<Vec<u8>>, Unmade> {
        let wrong = |trouble| Unmade {
            denied: false,
            finding: Some((target.source.selector(&target.path).to_owned(), trouble)),
        };
        match &target.source {
            Source::Secret { key, decode } => {
                let secret = self.bundle.secrets.get(key).filter(|_| target.present);
                let Some(secret) = secret else {
                    return Err(Unmade {
                        denied: self.bundle.denied.contains(key),
                        finding: None,
                    });
                };
                let content = content(secret, *decode).ok_or_else(|| wrong(Trouble::NotBase64))?;
                self.selection.versions.insert(key.clone(), secret.version);
                Ok(content)
            }
            Source::Configuration(key) => {
                let text = self.bundle.configurations.get(key).map_or("", String::as_str);
                Ok(Zeroizing::new(text.as_bytes().to_vec()))
            }
            Source::Configurations(format) => combined::configurations(*format, self.bundle)
                .map_err(|error| wrong(Trouble::Unmade(error.to_string()))),
            Source::Combined(index) => {
                let content = self.members.make(&self.binding.files[*index])?;
                for key in self.members.keys() {
                    let version = self.bundle.secrets[key].version;
                    self.selection.versions.insert(key.to_owned(), version);
                }
                Ok(content)
            }
        }
    }

    /// A file that cannot be made now.
    fn keep(&mut self, target: Target, unmade: Unmade) {
        if let Some((selector, trouble)) = unmade.finding {
            self.selection.findings.push(Finding {
                selector,
                trouble,
                required: target.required,
            });
        }
        let then = self.binding.staleness.map_or(Stale::Keep, |staleness| staleness.then);
        if unmade.denied && then == Stale::Remove {
            self.selection.withheld |= target.required;
            return;
        }
        if target.required {
            self.selection.required.insert(target.path.clone());
        }
        self.selection.files.keep.push(Kept {
            path: target.path,
            mode: target.mode,
        });
    }
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
