//! `spec.secrets` as rules, as a request and as files: pure.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::Pattern;
use sealpod_core::injection::{BindingFile, Decode, SecretFile, Select};
use sealpod_core::names::{MAX_SECRET_NAME, check_secret_key};
use sealpod_core::paths::FilePath;
use sealpod_core::wire::bundle::{BundleRequest, PinnedVersion};
use sealpod_crds::{SecretBindingSpec, SecretDecode, SecretSelection};

use super::layout::Layout;
use crate::controller::verdict::{Refusal, reasons};

/// The parsed entries of `spec.secrets`; `None` is every secret of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(pub Option<Vec<SecretFile>>);

/// The files that a set of keys makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Keys that no entry gives a path and whose own name is none.
    pub needs_path: BTreeSet<String>,
    /// Two keys, or one key by two entries, and the path that they meet on.
    pub collision: Option<(String, String, FilePath)>,
}

impl Selection {
    /// Reads what the schema has let through, and checks what no schema can.
    pub fn parse(spec: &SecretBindingSpec) -> Result<Self, Refusal> {
        let Some(entries) = &spec.secrets else {
            return Ok(Self(None));
        };
        let invalid =
            |at: usize, text: &str| Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.secrets[{at}]{text}"));
        let mut files = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            files.push(parse_entry(entry).map_err(|text| invalid(at, &text))?);
        }
        if let Some((first, second)) = two_versions(&files) {
            return Err(invalid(
                second,
                &format!(" wants another version of what spec.secrets[{first}] names"),
            ));
        }
        if let Some((first, second)) = same_path(&files) {
            let message = format!(
                "spec.secrets[{second}] has the path of spec.secrets[{first}], or one is a folder of the other: give one of them another path"
            );
            return Err(Refusal::until_edited(reasons::PATH_COLLISION, message));
        }
        Ok(Self(Some(files)))
    }

    /// The key patterns of the rules that the binding needs, each once.
    pub fn rules(&self) -> Vec<Pattern> {
        let Some(entries) = &self.0 else {
            return vec![Pattern::any()];
        };
        let mut patterns = BTreeMap::new();
        for entry in entries {
            let pattern = match &entry.select {
                Select::Name(name) => Pattern::escape(name).parse().expect("an escaped name is a pattern"),
                Select::Pattern(pattern) => pattern.clone(),
            };
            patterns.insert(pattern.as_str().to_owned(), pattern);
        }
        patterns.into_values().collect()
    }

    /// Asks for names and versions, never for values.
    pub fn request(&self) -> BundleRequest {
        let mut request = BundleRequest {
            values: false,
            ..BundleRequest::default()
        };
        for entry in self.0.iter().flatten() {
            match (&entry.select, entry.version) {
                (Select::Name(name), Some(version)) => request.version.push(PinnedVersion {
                    key: name.clone(),
                    version,
                }),
                (Select::Name(name), None) => request.key.push(name.clone()),
                (Select::Pattern(pattern), _) => request.pattern.push(pattern.clone()),
            }
        }
        request.key.sort_unstable();
        request.key.dedup();
        request.version.sort_unstable();
        request.version.dedup();
        request
    }

    /// The names that the entries give, and whether a pod can do without.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().flatten().filter_map(|entry| match &entry.select {
            Select::Name(name) => Some((name.as_str(), entry.optional)),
            Select::Pattern(_) => None,
        })
    }

    /// The patterns that have to match something.
    pub fn required_patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter().flatten().filter_map(|entry| match &entry.select {
            Select::Pattern(pattern) if !entry.optional => Some(pattern),
            _ => None,
        })
    }

    /// Whether the binding names this secret, or one of its patterns does.
    pub fn selects(&self, name: &str) -> bool {
        self.0
            .as_deref()
            .is_none_or(|entries| entries.iter().any(|entry| selects(&entry.select, name)))
    }

    /// Where the entries go that say so, with their index.
    pub fn places(&self) -> Vec<(usize, Place)> {
        let entries = self.0.as_deref().unwrap_or_default();
        entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| Some((at, place(entry)?)))
            .collect()
    }

    /// Where these keys would be written, beside `others`.
    pub fn files(&self, keys: &[&str], others: &Layout) -> Files {
        let mut files = Files::default();
        let others: Vec<_> = others.paths().collect();
        let mut taken: BTreeMap<FilePath, &str> = BTreeMap::new();
        let every = [SecretFile {
            select: Select::Pattern(Pattern::any()),
            path: None,
            mode: None,
            optional: true,
            version: None,
            decode: None,
        }];
        for entry in self.0.as_deref().unwrap_or(&every) {
            for &key in keys.iter().filter(|key| selects(&entry.select, key)) {
                let Some(path) = file_of(entry, key) else {
                    files.needs_path.insert(key.to_owned());
                    continue;
                };
                let of_secret = taken.iter().find(|(other, _)| other.collides_with(&path));
                let of_secret = of_secret.map(|(_, key)| (*key).to_owned());
                let of_other = || {
                    others
                        .iter()
                        .find(|(_, other)| other.collides_with(&path))
                        .map(|(name, _)| name.clone())
                };
                if let (Some(other), None) = (of_secret.or_else(of_other), &files.collision) {
                    files.collision = Some((other, key.to_owned(), path.clone()));
                }
                taken.insert(path, key);
            }
        }
        // A key that one entry cannot place is placed if another does.
        let placed: BTreeSet<&str> = taken.into_values().collect();
        files.needs_path.retain(|key| !placed.contains(key.as_str()));
        files
    }

    /// The file settings for the pods.
    pub fn binding_file(
        &self,
        spec: &SecretBindingSpec,
        layout: Layout,
        organization: &str,
        project: &str,
    ) -> Result<BindingFile, Refusal> {
        let invalid = |field: &str, why: &dyn std::fmt::Display| {
            Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.{field} {why}"))
        };
        Ok(BindingFile {
            organization: organization.to_owned(),
            project: project.to_owned(),
            environment: spec.environment.clone(),
            secrets: self.0.clone(),
            mode: file_mode(spec.mode).ok_or_else(|| invalid("mode", &"must be 0 to 511 (0777)"))?,
            refresh_interval: spec
                .refresh_interval()
                .map_err(|e| invalid("refreshInterval", &e))?
                .as_secs(),
            watch: spec.watch,
            configurations: layout.configurations,
            files: layout.files,
            on_change: layout.on_change,
            staleness: layout.staleness,
        })
    }
}

fn parse_entry(entry: &SecretSelection) -> Result<SecretFile, String> {
    let path = entry.path.as_deref().map(str::parse::<FilePath>).transpose();
    let path = path.map_err(|error| format!(".path {error}"))?;
    let select = match (&entry.name, &entry.pattern) {
        (Some(name), _) if name.chars().count() > MAX_SECRET_NAME => {
            return Err(format!(".name must be at most {MAX_SECRET_NAME} characters"));
        }
        (Some(name), _) if name.is_empty() => return Err(".name must not be empty".to_owned()),
        (Some(name), None) if path.is_some() || check_secret_key(name).is_ok() => Select::Name(name.clone()),
        (Some(_), None) => return Err(".name is no file name: set path".to_owned()),
        (None, Some(pattern)) => Select::Pattern(pattern.parse().map_err(|error| format!(".pattern {error}"))?),
        _ => return Err(" must have either name or pattern".to_owned()),
    };
    let is_pattern = matches!(select, Select::Pattern(_));
    let version = match entry.version {
        None => None,
        Some(_) if is_pattern => return Err(".version goes with name, not with pattern".to_owned()),
        Some(version) => match u64::try_from(version) {
            Ok(version @ 1..) => Some(version),
            _ => return Err(".version must be 1 or more".to_owned()),
        },
    };
    let mode = match entry.mode {
        None => None,
        Some(mode) => Some(file_mode(mode).ok_or(".mode must be 0 to 511 (0777)")?),
    };
    Ok(SecretFile {
        select,
        path,
        mode,
        optional: entry.optional.unwrap_or(is_pattern),
        version,
        decode: entry.decode.map(|SecretDecode::Base64| Decode::Base64),
    })
}

pub fn file_mode(mode: i32) -> Option<u32> {
    u32::try_from(mode).ok().filter(|mode| *mode <= 0o777)
}

fn selects(select: &Select, key: &str) -> bool {
    match select {
        Select::Name(name) => name == key,
        Select::Pattern(pattern) => pattern.matches(key),
    }
}

/// The file of a key that an entry selects.
fn file_of(entry: &SecretFile, key: &str) -> Option<FilePath> {
    match (&entry.select, &entry.path) {
        (Select::Name(_), Some(path)) => Some(path.clone()),
        _ if check_secret_key(key).is_err() => None,
        (Select::Pattern(_), Some(folder)) => folder.join(key).ok(),
        (_, None) => key.parse().ok(),
    }
}

/// Two entries that name one key in different versions: an answer holds a key once.
fn two_versions(entries: &[SecretFile]) -> Option<(usize, usize)> {
    let mut seen: BTreeMap<&str, (usize, Option<u64>)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Select::Name(name) = &entry.select else { continue };
        let (first, version) = *seen.entry(name).or_insert((at, entry.version));
        if version != entry.version {
            return Some((first, at));
        }
    }
    None
}

/// A file, or a folder whose files nobody knows yet.
pub enum Place {
    File(FilePath),
    Folder(FilePath),
}

impl Place {
    /// Whether a file of this path stands in the way: on it, below it, or above.
    pub fn meets(&self, file: &FilePath) -> bool {
        match self {
            Self::File(path) | Self::Folder(path) => path.collides_with(file),
        }
    }

    fn collides_with(&self, other: &Self) -> bool {
        let above =
            |file: &FilePath, folder: &FilePath| file == folder || folder.as_str().starts_with(&format!("{file}/"));
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.collides_with(other),
            (Self::File(file), Self::Folder(folder)) | (Self::Folder(folder), Self::File(file)) => above(file, folder),
            (Self::Folder(_), Self::Folder(_)) => false,
        }
    }
}

fn place(entry: &SecretFile) -> Option<Place> {
    match &entry.select {
        Select::Name(name) => file_of(entry, name).map(Place::File),
        Select::Pattern(_) => entry.path.clone().map(Place::Folder),
    }
}

/// Two named files on one path, or one below the other, or a file where a pattern has its folder.
fn same_path(entries: &[SecretFile]) -> Option<(usize, usize)> {
    let places: Vec<_> = entries
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| Some((at, place(entry)?)))
        .collect();
    places.iter().enumerate().find_map(|(index, (second, place))| {
        let first = places[..index].iter().find(|(_, other)| other.collides_with(place))?;
        Some((first.0, *second))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(secrets: &Value) -> SecretBindingSpec {
        let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod", "secrets": secrets});
        serde_json::from_value(spec).unwrap()
    }

    fn selection(secrets: &Value) -> Selection {
        Selection::parse(&spec(secrets)).unwrap()
    }

    #[test]
    fn an_entry_is_refused_with_its_place() {
        for (secrets, reason, text) in [
            (
                json!([{"name": "a"}, {}]),
                reasons::INVALID_SPEC,
                "spec.secrets[1] must have either",
            ),
            (
                json!([{"name": "a", "pattern": "b"}]),
                reasons::INVALID_SPEC,
                "either name or pattern",
            ),
            (
                json!([{"pattern": "a{"}]),
                reasons::INVALID_SPEC,
                "spec.secrets[0].pattern has a `{`",
            ),
            (
                json!([{"name": "a", "path": "../b"}]),
                reasons::INVALID_SPEC,
                "spec.secrets[0].path each segment",
            ),
            // A schema that somebody edited lets these through, and no pattern could hold them.
            (
                json!([{"name": "é".repeat(257), "path": "b"}]),
                reasons::INVALID_SPEC,
                "spec.secrets[0].name must be at most 200",
            ),
            (
                json!([{"name": "", "path": "b"}]),
                reasons::INVALID_SPEC,
                "must not be empty",
            ),
            (json!([{"name": "a/b"}]), reasons::INVALID_SPEC, "no file name"),
            (json!([{"name": "a", "version": 0}]), reasons::INVALID_SPEC, "1 or more"),
            (
                json!([{"pattern": "*", "version": 1}]),
                reasons::INVALID_SPEC,
                "goes with name",
            ),
            (json!([{"name": "a", "mode": 512}]), reasons::INVALID_SPEC, "0 to 511"),
            (
                json!([{"name": "a", "version": 1}, {"name": "a", "path": "b"}]),
                reasons::INVALID_SPEC,
                "another version",
            ),
            (
                json!([{"name": "a"}, {"name": "b", "path": "a"}]),
                reasons::PATH_COLLISION,
                "spec.secrets[0]",
            ),
            (
                json!([{"name": "a"}, {"name": "b", "path": "a/b"}]),
                reasons::PATH_COLLISION,
                "folder",
            ),
            (
                json!([{"pattern": "t-*", "path": "tls"}, {"name": "tls"}]),
                reasons::PATH_COLLISION,
                "spec.secrets[1]",
            ),
        ] {
            let refusal = Selection::parse(&spec(&secrets)).unwrap_err();
            assert_eq!(refusal.reason, reason, "{secrets}");
            assert!(refusal.message.contains(text), "{secrets}: {}", refusal.message);
        }
    }

    #[test]
    fn names_are_required_and_patterns_are_not_unless_said() {
        let selection = selection(&json!([
            {"name": "a"}, {"name": "b", "optional": true}, {"pattern": "c-*"}, {"pattern": "d-*", "optional": false},
        ]));
        assert_eq!(selection.names().collect::<Vec<_>>(), [("a", false), ("b", true)]);
        assert_eq!(
            selection.required_patterns().map(Pattern::as_str).collect::<Vec<_>>(),
            ["d-*"]
        );
    }

    #[test]
    fn rules_are_one_for_each_literal_or_pattern() {
        assert_eq!(Selection(None).rules(), [Pattern::any()]);
        let selection = selection(&json!([
            {"name": "a*b", "path": "x"}, {"name": "a*b", "path": "y"}, {"pattern": "tls-*"},
        ]));
        let rules: Vec<_> = selection.rules().iter().map(|p| p.as_str().to_owned()).collect();
        assert_eq!(rules, ["a\\*b", "tls-*"]);
    }

    #[test]
    fn the_request_never_asks_for_values() {
        let request = selection(&json!([
            {"name": "b"}, {"name": "b", "path": "c"}, {"name": "a", "version": 3}, {"pattern": "x-*"},
        ]))
        .request();
        assert!(!request.values);
        assert_eq!(request.key, ["b"]);
        assert_eq!(
            request.version.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["a:3"]
        );
        assert_eq!(request.pattern.len(), 1);
        assert!(!Selection(None).request().values);
    }

    #[test]
    fn keys_that_are_no_file_names_are_left_out_and_told() {
        let all = Selection(None).files(&["a", "b/c", ".d"], &Layout::default());
        assert_eq!(all.needs_path, BTreeSet::from(["b/c".to_owned(), ".d".to_owned()]));
        assert_eq!(all.collision, None);
        let placed = selection(&json!([{"pattern": "*"}, {"name": "b/c", "path": "c"}]));
        assert_eq!(placed.files(&["a", "b/c"], &Layout::default()), Files::default());
    }

    #[test]
    fn two_secrets_never_share_a_file() {
        let selection =
            selection(&json!([{"pattern": "db-*"}, {"pattern": "*-password"}, {"pattern": "x", "path": "y"}]));
        assert_eq!(selection.files(&["db-user", "x"], &Layout::default()).collision, None);
        let (one, other, path) = selection.files(&["db-password"], &Layout::default()).collision.unwrap();
        assert_eq!(
            (one.as_str(), other.as_str(), path.as_str()),
            ("db-password", "db-password", "db-password")
        );
    }
}
