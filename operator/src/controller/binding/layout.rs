//! What a binding writes beside one file for each secret, and how pods tell their app: `spec.configurations`,
//! `spec.files`, `spec.onChange` and `spec.staleness` as file settings. Pure.

use std::fmt::Display;

use sealpod_core::Pattern;
use sealpod_core::injection::{self, CombinedContent, ConfigurationFiles, Format, Select};
use sealpod_core::paths::FilePath;
use sealpod_crds::{
    CombinedFile, Configurations, ConfigurationsFormat, FileFormat, Include, OnChange, SecretBindingSpec, Stale,
    Staleness,
};

use super::selection::{Selection, file_mode};
use crate::controller::verdict::{Refusal, reasons};

/// Signals that an app may be told by; no other has a meaning of this kind.
const SIGNALS: [&str; 7] = [
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub configurations: Option<ConfigurationFiles>,
    pub files: Vec<injection::CombinedFile>,
    pub on_change: Option<injection::OnChange>,
    pub staleness: Option<injection::Staleness>,
}

impl Layout {
    /// Reads what the schema has let through, and checks what no schema can.
    pub fn parse(spec: &SecretBindingSpec, selection: &Selection) -> Result<Self, Refusal> {
        let configurations = match &spec.configurations {
            Some(wanted) if wanted.enabled => Some(configurations(wanted)?),
            _ => None,
        };
        let files = spec.files.iter().enumerate();
        let files =
            files.map(|(at, file)| combined(file, selection).map_err(|why| invalid(&format!("files[{at}]{why}"))));
        let layout = Self {
            configurations,
            files: files.collect::<Result<_, _>>()?,
            on_change: on_change(spec.on_change.as_ref())?,
            staleness: spec.staleness.as_ref().map(staleness).transpose()?,
        };
        layout.collision(selection).map_or(Ok(layout), Err)
    }

    /// The paths that are taken whatever the secrets are, with what takes them. Below the folder of configurations goes
    /// nothing else, because their keys may be anything.
    pub fn paths(&self) -> impl Iterator<Item = (String, &FilePath)> {
        let configurations = self.configurations.iter();
        let configurations = configurations.map(|c| ("spec.configurations".to_owned(), &c.path));
        let files = self.files.iter().enumerate();
        configurations.chain(files.map(|(at, file)| (format!("spec.files[{at}]"), &file.path)))
    }

    fn collision(&self, selection: &Selection) -> Option<Refusal> {
        let secrets = selection.places();
        let all: Vec<_> = self.paths().collect();
        all.iter().enumerate().find_map(|(index, (name, path))| {
            let before = all[..index].iter().find(|(_, other)| other.collides_with(path));
            let before = before.map(|(other, _)| other.clone());
            let secret = || {
                let mut found = secrets.iter().filter(|(_, place)| place.meets(path));
                found.next().map(|(at, _)| format!("spec.secrets[{at}]"))
            };
            let other = before.or_else(secret)?;
            let message = format!(
                "{name} has the path of {other}, or one is a folder of the other: give one of them another path"
            );
            Some(Refusal::until_edited(reasons::PATH_COLLISION, message))
        })
    }
}

fn invalid(what: &str) -> Refusal {
    Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.{what}"))
}

fn configurations(wanted: &Configurations) -> Result<ConfigurationFiles, Refusal> {
    let (format, default) = match wanted.format {
        ConfigurationsFormat::Files => (None, "configurations"),
        ConfigurationsFormat::Env => (Some(Format::Env), "configurations.env"),
        ConfigurationsFormat::Json => (Some(Format::Json), "configurations.json"),
        ConfigurationsFormat::Yaml => (Some(Format::Yaml), "configurations.yaml"),
        ConfigurationsFormat::Properties => (Some(Format::Properties), "configurations.properties"),
    };
    let path = wanted.path.as_deref().unwrap_or(default).parse();
    let path = path.map_err(|error| invalid(&format!("configurations.path {error}")))?;
    Ok(ConfigurationFiles { path, format })
}

fn combined(file: &CombinedFile, selection: &Selection) -> Result<injection::CombinedFile, String> {
    let path = file.path.parse().map_err(|error| format!(".path {error}"))?;
    let mode = match file.mode {
        None => None,
        Some(mode) => Some(file_mode(mode).ok_or(".mode must be 0 to 511 (0777)")?),
    };
    let format = match file.format {
        FileFormat::Env => Some(Format::Env),
        FileFormat::Json => Some(Format::Json),
        FileFormat::Yaml => Some(Format::Yaml),
        FileFormat::Properties => Some(Format::Properties),
        FileFormat::Template => None,
    };
    let content = match (format, &file.template) {
        (Some(format), None) => CombinedContent::Values {
            format,
            include: include(file.include.as_deref(), selection)?,
        },
        (None, Some(_)) if file.include.is_some() => {
            return Err(".include does not go with format: template, which names what it takes itself".to_owned());
        }
        (None, Some(source)) => {
            sealpod_render::check_template(source).map_err(|error| format!(".template: {error}"))?;
            CombinedContent::Template(source.clone())
        }
        _ => return Err(".template goes with format: template, and with nothing else".to_owned()),
    };
    Ok(injection::CombinedFile { path, content, mode })
}

fn include(entries: Option<&[Include]>, selection: &Selection) -> Result<Option<Vec<Select>>, String> {
    let Some(entries) = entries else { return Ok(None) };
    let read = |(at, entry): (usize, &Include)| match (&entry.name, &entry.pattern) {
        (Some(name), None) if selection.selects(name) => Ok(Select::Name(name.clone())),
        (Some(_), None) => Err(format!(
            ".include[{at}] names a secret that spec.secrets does not: add it there"
        )),
        (None, Some(pattern)) => match pattern.parse::<Pattern>() {
            Ok(pattern) => Ok(Select::Pattern(pattern)),
            Err(error) => Err(format!(".include[{at}].pattern {error}")),
        },
        _ => Err(format!(".include[{at}] must have either name or pattern")),
    };
    entries.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

/// `None` also where it is the operator's to do.
fn on_change(wanted: Option<&OnChange>) -> Result<Option<injection::OnChange>, Refusal> {
    let Some(OnChange { signal, http, restart }) = wanted else {
        return Ok(None);
    };
    match (signal, http, restart) {
        (Some(signal), None, None) if !SIGNALS.contains(&signal.name.as_str()) => Err(invalid(&format!(
            "onChange.signal.name must be one of {}",
            SIGNALS.join(", ")
        ))),
        (Some(signal), None, None) => Ok(Some(injection::OnChange::Signal {
            container: signal.container.clone(),
            name: signal.name.clone(),
        })),
        (None, Some(http), None) => {
            let port = u16::try_from(http.port).ok().filter(|port| *port > 0);
            let is_path = http.path.starts_with('/') && http.path.bytes().all(|b| b.is_ascii_graphic());
            Ok(Some(injection::OnChange::Http {
                port: port.ok_or_else(|| invalid("onChange.http.port must be 1 to 65535"))?,
                path: is_path
                    .then(|| http.path.clone())
                    .ok_or_else(|| invalid("onChange.http.path must begin with / and hold no space"))?,
            }))
        }
        (None, None, Some(_)) => Ok(None),
        _ => Err(invalid("onChange must have one of signal, http and restart")),
    }
}

fn staleness(wanted: &Staleness) -> Result<injection::Staleness, Refusal> {
    let unreadable = |error: &dyn Display| invalid(&format!("staleness.max {error}"));
    Ok(injection::Staleness {
        max: wanted
            .max()
            .map_err(|error| unreadable(&error))?
            .map(|max| max.as_secs()),
        then: match wanted.then {
            Stale::Keep => injection::Stale::Keep,
            Stale::Remove => injection::Stale::Remove,
            Stale::Unready => injection::Stale::Unready,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealpod_core::injection::BindingFile;
    use serde_json::{Value, json};

    fn spec(extra: &Value) -> SecretBindingSpec {
        let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn layout(extra: &Value) -> Result<Layout, Refusal> {
        let spec = spec(extra);
        Layout::parse(&spec, &Selection::parse(&spec)?)
    }

    #[test]
    fn every_field_reaches_the_file_settings() {
        let spec = spec(&json!({
            "secrets": [{"name": "db/password", "path": "db"}, {"pattern": "tls-*", "path": "tls"}],
            "configurations": {"format": "env"},
            "files": [
                {"path": "app.env", "format": "env", "include": [{"name": "db/password"}, {"pattern": "tls-*"}]},
                {"path": "all.json", "format": "json", "mode": 0o400},
                {"path": "app.ini", "format": "template", "template": "{{ secrets[\"db/password\"] }}\n"},
            ],
            "onChange": {"http": {"port": 8080, "path": "/reload?now"}},
            "staleness": {"max": "1h", "then": "Unready"},
            "refreshInterval": "1m", "watch": false, "mode": 0o400,
        }));
        let selection = Selection::parse(&spec).unwrap();
        let layout = Layout::parse(&spec, &selection).unwrap();
        let file: BindingFile = selection.binding_file(&spec, layout, "default", "shop").unwrap();
        let want = json!({
            "organization": "default", "project": "shop", "environment": "prod", "mode": 0o400, "refreshInterval": 60,
            "watch": false,
            "secrets": [
                {"name": "db/password", "path": "db", "optional": false},
                {"pattern": "tls-*", "path": "tls", "optional": true},
            ],
            "configurations": {"path": "configurations.env", "format": "env"},
            "files": [
                {"path": "app.env", "values": {"format": "env", "include": [{"name": "db/password"}, {"pattern": "tls-*"}]}},
                {"path": "all.json", "values": {"format": "json"}, "mode": 0o400},
                {"path": "app.ini", "template": "{{ secrets[\"db/password\"] }}\n"},
            ],
            "onChange": {"http": {"port": 8080, "path": "/reload?now"}},
            "staleness": {"max": 3600, "then": "unready"},
        });
        assert_eq!(serde_json::to_value(file).unwrap(), want);
    }

    #[test]
    fn what_is_left_out_has_its_default_and_a_restart_is_not_the_pods_to_do() {
        assert_eq!(layout(&json!({})).unwrap(), Layout::default());
        let off = json!({"configurations": {"enabled": false}, "onChange": {"restart": "Rollout"}});
        assert_eq!(layout(&off).unwrap(), Layout::default());
        for (format, path) in [
            ("files", "configurations"),
            ("json", "configurations.json"),
            ("yaml", "configurations.yaml"),
            ("properties", "configurations.properties"),
        ] {
            let layout = layout(&json!({"configurations": {"format": format}})).unwrap();
            assert_eq!(layout.configurations.unwrap().path.as_str(), path);
        }
        let signal = layout(&json!({"onChange": {"signal": {"container": "app"}}})).unwrap();
        let want = injection::OnChange::Signal {
            container: "app".to_owned(),
            name: "SIGHUP".to_owned(),
        };
        assert_eq!(signal.on_change, Some(want));
    }

    #[test]
    fn what_no_schema_sees_is_refused_with_its_place() {
        let template = |source: &str| json!({"files": [{"path": "a", "format": "template", "template": source}]});
        for (extra, text) in [
            (template("{{ secrets[ }}"), "spec.files[0].template: line 1"),
            (
                json!({"files": [{"path": "a", "format": "template"}]}),
                "goes with format: template",
            ),
            (
                json!({"files": [{"path": "a", "format": "env", "template": "x"}]}),
                "goes with format: template",
            ),
            (
                json!({"files": [{"path": "../a", "format": "env"}]}),
                "spec.files[0].path each segment",
            ),
            (
                json!({"files": [{"path": "a", "format": "env", "mode": 512}]}),
                "0 to 511",
            ),
            (
                json!({"secrets": [{"name": "a"}], "files": [{"path": "f", "format": "env", "include": [{"name": "b"}]}]}),
                "spec.files[0].include[0] names a secret that spec.secrets does not",
            ),
            (
                json!({"files": [{"path": "f", "format": "env", "include": [{"pattern": "a{"}]}]}),
                "spec.files[0].include[0].pattern has a `{`",
            ),
            (
                json!({"configurations": {"path": "/etc"}}),
                "spec.configurations.path each segment",
            ),
            (
                json!({"onChange": {"signal": {"container": "a", "name": "SIGKILL"}}}),
                "must be one of SIGHUP",
            ),
            (json!({"onChange": {"http": {"port": 0}}}), "1 to 65535"),
            (json!({"onChange": {"http": {"port": 1, "path": "x"}}}), "begin with /"),
            (json!({"onChange": {}}), "one of signal, http and restart"),
            (
                json!({"staleness": {"max": "1d"}}),
                "spec.staleness.max must be a duration",
            ),
        ] {
            let refusal = layout(&extra).unwrap_err();
            assert_eq!(refusal.reason, reasons::INVALID_SPEC, "{extra}");
            assert!(refusal.message.contains(text), "{extra}: {}", refusal.message);
        }
    }

    #[test]
    fn secrets_configurations_and_files_never_share_a_path() {
        let file = |path: &str| json!({"path": path, "format": "json"});
        for (extra, text) in [
            (
                json!({"files": [file("a"), file("a")]}),
                "spec.files[1] has the path of spec.files[0]",
            ),
            (json!({"files": [file("a"), file("a/b")]}), "folder"),
            (
                json!({"secrets": [{"name": "a"}], "files": [file("a")]}),
                "spec.files[0] has the path of spec.secrets[0]",
            ),
            (
                json!({"secrets": [{"pattern": "*", "path": "tls"}], "files": [file("tls")]}),
                "spec.secrets[0]",
            ),
            (
                json!({"configurations": {"path": "etc"}, "files": [file("etc/app")]}),
                "spec.configurations",
            ),
            (
                json!({"configurations": {}, "secrets": [{"name": "configurations"}]}),
                "spec.secrets[0]",
            ),
            (
                json!({"configurations": {"path": "etc"}, "secrets": [{"pattern": "*", "path": "etc"}]}),
                "spec.secrets[0]",
            ),
        ] {
            let refusal = layout(&extra).unwrap_err();
            assert_eq!(refusal.reason, reasons::PATH_COLLISION, "{extra}");
            assert!(refusal.message.contains(text), "{extra}: {}", refusal.message);
        }
        assert!(layout(&json!({"secrets": [{"pattern": "*", "path": "tls"}], "files": [file("app")]})).is_ok());
        // A folder of secrets may hold a file that is no secret's.
        assert!(layout(&json!({"secrets": [{"name": "x", "path": "tls/x"}], "files": [file("tls/y")]})).is_ok());
    }
}
