//! What the tests are told by their environment.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where the cluster, the tools and the images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub kubeconfig: PathBuf,
    /// Folder with `kubectl` and `helm`.
    pub bin: PathBuf,
    /// `image.registry` of the chart; none: its default.
    pub registry: Option<String>,
    /// `image.tag` of the chart; none: its default.
    pub tag: Option<String>,
    /// An image with a shell, for the apps of the tests.
    pub app_image: String,
    /// The program that started the cluster; none where that is somebody else's.
    pub xtask: Option<PathBuf>,
    /// The cluster provisions no volumes: the api-server's was made by hand.
    pub hand_made_volume: bool,
}

impl Settings {
    pub fn from_env() -> Result<Self> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let required = |name: &str| {
            variable(name)
                .with_context(|| format!("{name} is not set: these tests need a cluster, so run `cargo xtask test`"))
        };
        Ok(Self {
            kubeconfig: required("KUBECONFIG")?.into(),
            bin: required("SEALPOD_E2E_BIN")?.into(),
            registry: variable("SEALPOD_E2E_IMAGE_REGISTRY"),
            tag: variable("SEALPOD_E2E_IMAGE_TAG"),
            app_image: variable("SEALPOD_E2E_APP_IMAGE").unwrap_or_else(|| "sealpod.dev/demo-app:local".to_owned()),
            xtask: variable("SEALPOD_E2E_XTASK").map(PathBuf::from),
            hand_made_volume: variable("SEALPOD_E2E_VOLUMES").is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let error = Settings::read(|name| (name == "KUBECONFIG").then(|| "/k".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("SEALPOD_E2E_BIN") && error.contains("cargo xtask test"),
            "{error}"
        );
    }

    #[test]
    fn only_the_cluster_and_the_tools_have_to_be_named() {
        let settings = Settings::read(|name| {
            ["KUBECONFIG", "SEALPOD_E2E_BIN"]
                .contains(&name)
                .then(|| "/x".to_owned())
        });
        let settings = settings.unwrap();
        assert_eq!(
            (settings.registry, settings.tag, settings.hand_made_volume),
            (None, None, false)
        );
    }
}
