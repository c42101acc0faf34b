//! What a spec says of files beside `spec.secrets`, as the sidecar's settings: pure.

use sealpod_core::Pattern;
use sealpod_core::injection::{
    CombinedContent, CombinedFile, ConfigurationFiles, Format, OnChange, Select, Stale, Staleness,
};
use sealpod_core::paths::FilePath;
use sealpod_crds as crds;
use sealpod_crds::SecretBindingSpec;

use super::selection::file_mode;
use crate::controller::verdict::{Refusal, reasons};

/// The settings beside the secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub configurations: Option<ConfigurationFiles>,
    pub files: Vec<CombinedFile>,
    pub on_change: Option<OnChange>,
    pub staleness: Option<Staleness>,
}

impl Delivery {
    /// Reads what the schema has let through, and checks what no schema can.
    pub fn parse(spec: &SecretBindingSpec) -> Result<Self, Refusal> {
        let refused = |(field, why): (String, String)| {
            Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.{field} {why}"))
        };
        let configurations = spec.configurations.as_ref().filter(|wanted| wanted.enabled);
        let files = spec.files.iter().enumerate();
        Ok(Self {
            configurations: configurations
                .map(configuration_files)
                .transpose()
                .map_err(|why| refused(("configurations.path".to_owned(), why)))?,
            files: files
                .map(|(at, file)| combined(file).map_err(|(field, why)| refused((format!("files[{at}]{field}"), why))))
                .collect::<Result<_, _>>()?,
            on_change: spec
                .on_change
                .as_ref()
                .map(on_change)
                .transpose()
                .map_err(|why| refused(("onChange.http.port".to_owned(), why)))?
                .flatten(),
            staleness: spec
                .staleness
                .as_ref()
                .map(staleness)
                .transpose()
                .map_err(|why| refused(("staleness.max".to_owned(), why)))?,
        })
    }
}

/// The path is never left to the sidecar's default, so that both always mean the same one.
fn configuration_files(wanted: &crds::Configurations) -> Result<ConfigurationFiles, String> {
    let (format, default) = match wanted.format {
        crds::ConfigurationsFormat::Files => (None, "configurations"),
        crds::ConfigurationsFormat::Env => (Some(Format::Env), "configurations.env"),
        crds::ConfigurationsFormat::Json => (Some(Format::Json), "configurations.json"),
        crds::ConfigurationsFormat::Yaml => (Some(Format::Yaml), "configurations.yaml"),
        crds::ConfigurationsFormat::Properties => (Some(Format::Properties), "configurations.properties"),
    };
    Ok(ConfigurationFiles {
        path: path(wanted.path.as_deref().unwrap_or(default))?,
        format,
    })
}

/// The error is the field, and what is wrong with it.
fn combined(file: &crds::CombinedFile) -> Result<CombinedFile, (String, String)> {
    let invalid = |field: &str| {
        let field = field.to_owned();
        move |why: String| (field, why)
    };
    let format = match file.format {
        crds::FileFormat::Env => Some(Format::Env),
        crds::FileFormat::Json => Some(Format::Json),
        crds::FileFormat::Yaml => Some(Format::Yaml),
        crds::FileFormat::Properties => Some(Format::Properties),
        crds::FileFormat::Template => None,
    };
    let content = match (format, &file.template) {
        (Some(format), None) => {
            let include = file.include.as_ref();
            let include = include.map(|include| include.iter().map(select).collect()).transpose();
            CombinedContent::Values {
                format,
                include: include.map_err(invalid(".include"))?,
            }
        }
        (None, Some(source)) => {
            let error = sealpod_render::check_template(source).err();
            if let Some(error) = error {
                return Err((".template".to_owned(), format!("is none: {error}")));
            }
            CombinedContent::Template(source.clone())
        }
        _ => {
            return Err((
                ".template".to_owned(),
                "goes with format: template, and with nothing else".to_owned(),
            ));
        }
    };
    let mode = file
        .mode
        .map(|mode| file_mode(mode).ok_or_else(|| "must be 0 to 511 (0777)".to_owned()));
    Ok(CombinedFile {
        path: path(&file.path).map_err(invalid(".path"))?,
        content,
        mode: mode.transpose().map_err(invalid(".mode"))?,
    })
}

fn path(text: &str) -> Result<FilePath, String> {
    text.parse()
        .map_err(|error: sealpod_core::paths::PathError| error.to_string())
}

fn select(include: &crds::Include) -> Result<Select, String> {
    match (&include.name, &include.pattern) {
        (Some(name), None) => Ok(Select::Name(name.clone())),
        (None, Some(pattern)) => match pattern.parse::<Pattern>() {
            Ok(pattern) => Ok(Select::Pattern(pattern)),
            Err(error) => Err(format!("has a pattern that {error}")),
        },
        _ => Err("entries must have either name or pattern".to_owned()),
    }
}

/// None where the sidecar has nothing to do: a rollout is the controller's.
fn on_change(wanted: &crds::OnChange) -> Result<Option<OnChange>, String> {
    if let Some(signal) = &wanted.signal {
        return Ok(Some(OnChange::Signal {
            container: signal.container.clone(),
            name: signal.name.clone(),
        }));
    }
    let Some(http) = &wanted.http else { return Ok(None) };
    match u16::try_from(http.port) {
        Ok(port @ 1..) => Ok(Some(OnChange::Http {
            port,
            path: http.path.clone(),
        })),
        _ => Err("must be 1 to 65535".to_owned()),
    }
}

fn staleness(wanted: &crds::Staleness) -> Result<Staleness, String> {
    let max = wanted.max().map_err(|error| error.to_string())?;
    Ok(Staleness {
        max: max.map(|max| max.as_secs()),
        then: match wanted.then {
            crds::Stale::Keep => Stale::Keep,
            crds::Stale::Remove => Stale::Remove,
            crds::Stale::Unready => Stale::Unready,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(extra: &Value) -> Result<Value, String> {
        let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
        for (field, value) in extra.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let spec: SecretBindingSpec = serde_json::from_value(spec).unwrap();
        let read = Delivery::parse(&spec).map_err(|refusal| format!("{refusal:?}"))?;
        Ok(json!([read.configurations, read.files, read.on_change, read.staleness]))
    }

    #[test]
    fn what_a_spec_says_is_what_the_sidecar_reads() {
        assert_eq!(parse(&json!({})).unwrap(), json!([null, [], null, null]));
        let all = parse(&json!({
            "configurations": {"enabled": true, "format": "env"},
            "files": [
                {"path": "app.env", "format": "env", "include": [{"name": "a"}, {"pattern": "b*"}], "mode": 0o400},
                {"path": "etc/app.ini", "format": "template", "template": "{{ secrets.a }}"},
            ],
            "onChange": {"signal": {"container": "app"}},
            "staleness": {"max": "1h", "then": "Remove"},
        }));
        let want = json!([
            {"path": "configurations.env", "format": "env"},
            [
                {"path": "app.env", "values": {"format": "env", "include": [{"name": "a"}, {"pattern": "b*"}]}, "mode": 0o400},
                {"path": "etc/app.ini", "template": "{{ secrets.a }}"},
            ],
            {"signal": {"container": "app", "name": "SIGHUP"}},
            {"max": 3600, "then": "remove"},
        ]);
        assert_eq!(all.unwrap(), want);
        let rest = parse(&json!({
            "configurations": {"enabled": false},
            "onChange": {"restart": "Rollout"},
            "staleness": {},
        }));
        assert_eq!(rest.unwrap(), json!([null, [], null, {"then": "keep"}]));
    }

    #[test]
    fn what_no_schema_sees_is_refused_by_its_field() {
        for (spec, field) in [
            (
                json!({"files": [{"path": "a", "format": "template", "template": "{{ x"}]}),
                "spec.files[0].template is none",
            ),
            (
                json!({"files": [{"path": "a/../b", "format": "json"}]}),
                "spec.files[0].path",
            ),
            (
                json!({"files": [{"path": "a", "format": "json", "include": [{"pattern": "{"}]}]}),
                "spec.files[0].include",
            ),
            (json!({"configurations": {"path": "/a"}}), "spec.configurations.path"),
            (json!({"staleness": {"max": "soon"}}), "spec.staleness.max"),
        ] {
            let refused = parse(&spec).unwrap_err();
            assert!(refused.contains(field), "{field}: {refused}");
        }
    }
}
