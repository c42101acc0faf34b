//! What the user asked for.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::cluster::network::Subnet;
use crate::process::Failure;

/// A public image with a shell and `sha256sum`, for clusters that are not ours.
const PUBLIC_APP_IMAGE: &str = "docker.io/library/busybox:1.37";

/// Flags of `cargo xtask demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Remove the demo: the local cluster, or with --existing all that the demo put into that one
    #[arg(long, conflicts_with_all = ["registry", "load_command", "app_image", "values"])]
    pub down: bool,
    /// Use the cluster of KUBECONFIG with kubectl and helm from PATH; needs neither root nor Go
    #[arg(long)]
    pub existing: bool,
    /// With --existing: pull the images HOST/PATH/sealpod-{api-server,operator,sidecar} from a registry
    #[arg(long, value_name = "HOST/PATH", requires = "existing")]
    registry: Option<String>,
    /// With --registry: the tag of the images [default: the chart's version]
    #[arg(long, requires = "registry")]
    tag: Option<String>,
    /// With --existing: bring the images as archives; run for each, `{}` is the file ("kind load image-archive {}")
    #[arg(long, value_name = "COMMAND", requires = "existing", conflicts_with = "registry", value_parser = load_command)]
    load_command: Option<String>,
    /// With --load-command: archives of an earlier `cargo xtask images --output DIR`, instead of building them now
    #[arg(long, value_name = "DIR", requires = "load_command")]
    archives: Option<PathBuf>,
    /// With --existing: image of the example's app, any with a shell and sha256sum
    #[arg(long, value_name = "IMAGE", requires = "existing", default_value = PUBLIC_APP_IMAGE)]
    app_image: String,
    /// With --existing: further values of the chart, as `helm --set` takes them; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "existing")]
    values: Vec<String>,
    /// Four private addresses for the local cluster [default: 10.99.0.0/30]
    #[arg(long, env = "SEALPOD_CLUSTER_SUBNET", value_name = "NETWORK/30")]
    pub subnet: Option<Subnet>,
}

/// Where a cluster that is not ours gets the images from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    Registry {
        registry: String,
        /// `None`: the chart's version.
        tag: Option<String>,
    },
    Archives {
        /// A shell command in which `{}` stands for the archive.
        command: String,
        /// `None`: build them.
        dir: Option<PathBuf>,
    },
}

/// What a demo on a cluster that is not ours needs to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Existing {
    pub source: Source,
    pub app_image: String,
    /// For `helm --set`.
    pub values: Vec<String>,
}

impl Options {
    /// Reads the flags that go with `--existing`.
    pub fn into_existing(self) -> Result<Existing> {
        let source = match (self.registry, self.load_command) {
            (Some(registry), _) => Source::Registry {
                registry: registry.trim_end_matches('/').to_string(),
                tag: self.tag,
            },
            (None, Some(command)) => Source::Archives {
                command,
                dir: self.archives,
            },
            (None, None) => {
                return Err(Failure::new("--existing has to be told how the cluster gets the images")
                    .advice(
                        "name a registry that has them (--registry HOST/PATH --tag TAG), or the command that brings an archive \
                         to the nodes, for example --load-command 'kind load image-archive {}'",
                    )
                    .into());
            }
        };
        Ok(Existing {
            source,
            app_image: self.app_image,
            values: self.values,
        })
    }
}

fn load_command(text: &str) -> Result<String, String> {
    if text.contains("{}") {
        return Ok(text.to_string());
    }
    Err("the command has to contain {}, which stands for the archive".to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("demo").chain(line.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(command.options)
    }

    #[test]
    fn a_registry_and_its_tag_are_taken() {
        let existing = parse("--existing --registry ghcr.io/me/ --tag v1 --set a=b --set c=d").unwrap();
        let existing = existing.into_existing().unwrap();
        let source = Source::Registry {
            registry: "ghcr.io/me".into(),
            tag: Some("v1".into()),
        };
        assert_eq!(existing.source, source);
        assert_eq!(existing.values, ["a=b", "c=d"]);
        assert_eq!(existing.app_image, PUBLIC_APP_IMAGE);
    }

    #[test]
    fn archives_are_built_unless_a_folder_is_named() {
        let source = |line: &str| parse(line).unwrap().into_existing().unwrap().source;
        let archives = |dir: Option<&str>| Source::Archives {
            command: "load{}".into(),
            dir: dir.map(PathBuf::from),
        };
        assert_eq!(source("--existing --load-command load{}"), archives(None));
        assert_eq!(
            source("--existing --load-command load{} --archives out"),
            archives(Some("out"))
        );
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        for line in [
            "--registry r",
            "--existing --tag t",
            "--existing --registry r --load-command l{}",
            "--existing --archives d",
            "--set a=b",
            "--app-image x",
            "--existing --down --registry r",
            "--existing --load-command nothing-to-replace",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["", "--down", "--existing --down", "--subnet 172.31.254.0/30"] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn without_a_source_of_images_both_ways_are_shown() {
        let error = parse("--existing").unwrap().into_existing().unwrap_err().to_string();
        assert!(
            error.contains("--registry") && error.contains("--load-command"),
            "{error}"
        );
    }
}
