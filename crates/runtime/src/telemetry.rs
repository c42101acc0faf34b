//! Logging to standard error, so that standard output stays for what a command prints.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; in colours where standard error is a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log format must be `text` or `json`")]
    Format,
    #[error("the log filter must be a level or a list of `target=level`, for example `info,sealpod_operator=debug`")]
    Filter,
    #[error("logging was set up twice in one process")]
    Twice,
}

impl FromStr for Format {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format),
        }
    }
}

/// Starts logging. `filter` is a level (`info`) and/or `target=level` pairs, separated by commas.
///
/// The filter knows targets and levels only: no field matching, which would compile a regular-expression engine into
/// every binary. The HTTP libraries below us log headers and bodies at `trace`, so they never go under `info`,
/// whatever the filter says; and the Kubernetes client warns of an answer that it cannot read by logging all of it, be
/// it a list of Secrets, so it never goes under `error`.
pub fn init(filter: &str, format: Format) -> Result<(), TelemetryError> {
    let targets = parse(filter)?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        Format::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init()
        .map_err(|_| TelemetryError::Twice)
}

fn parse(filter: &str) -> Result<Targets, TelemetryError> {
    const ALL: [Level; 3] = [Level::ERROR, Level::WARN, Level::INFO];
    const QUIET: [(&str, &[Level]); 7] = [
        ("hyper", &ALL),
        ("hyper_util", &ALL),
        ("h2", &ALL),
        ("reqwest", &ALL),
        ("rustls", &ALL),
        ("tower", &ALL),
        ("kube_client::client", &[Level::ERROR]),
    ];
    let asked: Targets = filter.trim().parse().map_err(|_| TelemetryError::Filter)?;
    let capped: Vec<_> = QUIET
        .iter()
        .map(|(target, allowed)| {
            let level = allowed.iter().rfind(|level| asked.would_enable(target, level));
            (*target, level.map_or(LevelFilter::OFF, |level| (*level).into()))
        })
        .collect();
    let below_quiet = |target: &str| {
        QUIET.iter().any(|(quiet, _)| {
            target
                .strip_prefix(*quiet)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    let default = asked.default_level();
    let kept: Vec<_> = asked.into_iter().filter(|(target, _)| !below_quiet(target)).collect();
    let filter = Targets::new().with_targets(kept).with_targets(capped);
    Ok(match default {
        Some(level) => filter.with_default(level),
        None => filter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_with_exceptions() {
        let filter = parse("info,sealpod_operator=debug,kube=warn").unwrap();
        assert!(filter.would_enable("anything", &Level::INFO));
        assert!(!filter.would_enable("anything", &Level::DEBUG));
        assert!(filter.would_enable("sealpod_operator::controller", &Level::DEBUG));
        assert!(!filter.would_enable("kube::client", &Level::INFO));
        assert!(parse("sealpod=loud").is_err());
    }

    #[test]
    fn an_unreadable_answer_of_the_kubernetes_api_is_never_logged() {
        for filter in ["trace", "info,kube_client=debug", "info,kube_client::client=warn"] {
            let filter = parse(filter).unwrap();
            assert!(!filter.would_enable("kube_client::client", &Level::WARN));
            assert!(filter.would_enable("kube_client::client", &Level::ERROR));
        }
        assert!(!parse("off").unwrap().would_enable("kube_client::client", &Level::ERROR));
    }

    #[test]
    fn libraries_that_log_headers_stay_quiet_whatever_is_asked() {
        for filter in [
            "trace",
            "info,hyper=trace",
            "debug,h2::codec=trace,reqwest::connect=trace",
        ] {
            let filter = parse(filter).unwrap();
            for target in ["hyper::proto", "h2::codec", "reqwest::connect", "rustls::client"] {
                assert!(!filter.would_enable(target, &Level::DEBUG), "{target}");
            }
            assert!(filter.would_enable("h2", &Level::WARN));
        }
        assert!(!parse("error").unwrap().would_enable("h2", &Level::WARN));
        assert!(!parse("off").unwrap().would_enable("h2", &Level::ERROR));
    }
}
