//! What the process is told: one JSON document from the injector, and how to log.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use sealpod_client::Client;
use sealpod_core::injection::{SETTINGS_VARIABLE, SidecarSettings, VERSIONS_VARIABLE};
use sealpod_runtime::telemetry::Format;

/// Environment variables beside [`SETTINGS_VARIABLE`].
pub const LOG_VARIABLE: &str = "SEALPOD_LOG";
pub const LOG_FORMAT_VARIABLE: &str = "SEALPOD_LOG_FORMAT";

/// Smallest volume that holds a file, its successor and the state, in bytes.
const MIN_SIZE_LIMIT: u64 = 64 * 1024;

#[derive(Debug, Clone)]
pub struct Config {
    pub settings: SidecarSettings,
    /// A level and/or `target=level` pairs.
    pub log: String,
    pub log_format: Format,
    /// Whether the metrics tell the version of each key.
    pub versions: bool,
}

/// Every fault of the configuration at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not usable: {}", self.0.join("; "))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }

    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let log_format = match variable(LOG_FORMAT_VARIABLE).as_deref().map(str::parse) {
            None => Format::default(),
            Some(Ok(format)) => format,
            Some(Err(error)) => {
                faults.push(format!("{LOG_FORMAT_VARIABLE}: {error}"));
                Format::default()
            }
        };
        let versions = match variable(VERSIONS_VARIABLE).as_deref() {
            None | Some("" | "false") => false,
            Some("true") => true,
            Some(_) => {
                faults.push(format!("{VERSIONS_VARIABLE}: must be true or false"));
                false
            }
        };
        let settings = match variable(SETTINGS_VARIABLE) {
            None => Err(format!(
                "{SETTINGS_VARIABLE} is not set; the injector sets it, as one JSON document"
            )),
            Some(text) => serde_json::from_str::<SidecarSettings>(&text)
                .map_err(|error| format!("{SETTINGS_VARIABLE} is not what this version reads: {error}")),
        };
        match settings {
            Ok(settings) => {
                faults.extend(check(&settings));
                if faults.is_empty() {
                    return Ok(Self {
                        settings,
                        log: variable(LOG_VARIABLE).unwrap_or_else(|| "info".to_owned()),
                        log_format,
                        versions,
                    });
                }
            }
            Err(fault) => faults.push(fault),
        }
        Err(ConfigError(faults))
    }
}

fn check(settings: &SidecarSettings) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(error) = Client::check_url(&settings.server_url) {
        faults.push(format!("serverUrl: {error}"));
    }
    if settings.bindings.is_empty() {
        faults.push("bindings: must name at least one".to_owned());
    }
    let mut mounts = BTreeSet::new();
    for binding in &settings.bindings {
        let name = &binding.name;
        for (field, path) in [
            ("mountPath", &binding.mount_path),
            ("credentials", &binding.credentials),
        ] {
            if !Path::new(path).is_absolute() {
                faults.push(format!("binding {name:?}: {field} must be an absolute path"));
            }
        }
        if !mounts.insert(&binding.mount_path) {
            faults.push(format!("binding {name:?}: another binding has the same mountPath"));
        }
        if binding.size_limit < MIN_SIZE_LIMIT {
            faults.push(format!("binding {name:?}: sizeLimit must be at least 64Ki"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings() -> Value {
        json!({
            "serverUrl": "https://server:7100", "healthPort": 7102,
            "pod": {"namespace": "n", "name": "p", "uid": "u", "node": "k"},
            "bindings": [{"name": "db", "mountPath": "/m/db", "credentials": "/c/db", "sizeLimit": 16_777_216}],
        })
    }

    fn read(settings: &Value, format: &str) -> Result<Config, ConfigError> {
        Config::read(|name| match name {
            SETTINGS_VARIABLE => Some(settings.to_string()),
            LOG_FORMAT_VARIABLE => Some(format.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn what_the_injector_writes_is_read() {
        let config = read(&settings(), "json").unwrap();
        assert_eq!(config.settings.bindings[0].name, "db");
        assert_eq!((config.log.as_str(), config.log_format), ("info", Format::Json));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut bad = settings();
        bad["serverUrl"] = json!("server");
        bad["bindings"] = json!([
            {"name": "a", "mountPath": "m", "credentials": "/c", "sizeLimit": 1},
            {"name": "b", "mountPath": "m", "credentials": "/c", "sizeLimit": 16_777_216},
        ]);
        let text = read(&bad, "xml").unwrap_err().to_string();
        for fault in [
            "serverUrl",
            "SEALPOD_LOG_FORMAT",
            "\"a\": mountPath",
            "\"a\": sizeLimit",
            "same mountPath",
        ] {
            assert!(text.contains(fault), "{fault}: {text}");
        }
        let none = Config::read(|_| None).unwrap_err().to_string();
        assert!(none.contains("SEALPOD_SETTINGS is not set"), "{none}");
    }
}
