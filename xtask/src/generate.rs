//! Files that are made from code and committed, so that users need no build to read or apply them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use sealpod_core::kubernetes::{GROUP, INJECT_LABEL, annotations};

use crate::process::{self, Failure};
use crate::workspace::Workspace;

/// A file below the root of the checkout, and what it has to contain.
struct Generated {
    path: PathBuf,
    content: String,
}

/// Writes every generated file; with `check`, fails when one on disk differs.
pub fn run(workspace: &Workspace, check: bool) -> Result<()> {
    let files = all(workspace)?;
    if check {
        return require_current(&workspace.root, &files);
    }
    for file in &files {
        let path = workspace.root.join(&file.path);
        if fs::read_to_string(&path).is_ok_and(|content| content == file.content) {
            continue;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", file.path.display());
    }
    Ok(())
}

fn require_current(root: &Path, files: &[Generated]) -> Result<()> {
    let is_stale = |file: &&Generated| fs::read_to_string(root.join(&file.path)).ok().as_ref() != Some(&file.content);
    let stale: Vec<_> = files
        .iter()
        .filter(is_stale)
        .map(|file| file.path.display().to_string())
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(format!("generated files are not up to date: {}", stale.join(", ")))
            .advice("run `cargo xtask generate` and commit what it writes")
            .into(),
    )
}

fn all(workspace: &Workspace) -> Result<Vec<Generated>> {
    let mut files = vec![openapi(workspace)?, annotations()];
    for definition in sealpod_crds::all() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        let yaml = sealpod_crds::yaml(&definition);
        files.push(Generated {
            path: Path::new("crds").join(&name),
            content: format!("{HEADER}{yaml}"),
        });
        files.push(Generated {
            path: Path::new("charts/sealpod/templates/crds").join(&name),
            content: chart_template(&yaml)?,
        });
    }
    Ok(files)
}

/// The description of the REST planes, as the api-server of this checkout prints it.
///
/// Asked of the program rather than linked: xtask would take a minute longer to build for everything else it does.
fn openapi(workspace: &Workspace) -> Result<Generated> {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "sealpod-api-server", "--", "openapi"]);
    Ok(Generated {
        path: Path::new("docs/openapi.json").into(),
        content: process::capture(&mut command).context("the api-server does not print its description")?,
    })
}

/// What users may write on pods.
fn annotations() -> Generated {
    Generated {
        path: Path::new("docs/annotations.md").into(),
        content: format!(
            "<!-- Written by `cargo xtask generate` from crates/core/src/kubernetes/annotations.rs. Do not edit. -->\n\
             # Annotations of pods\n\n\
             A pod with the label `{INJECT_LABEL}: \"true\"` gets the files of its SecretBindings. These annotations say more; \
             anything else with the prefix `{GROUP}/` has no effect, and whoever creates the pod is told so, with the nearest \
             of them. In a Deployment, StatefulSet, DaemonSet, Job or CronJob all of it belongs to the pod template; what its \
             controller is told then stands in the injector's log, as `admitted a pod with warnings`.\n\n\
             {}\n\
             An amount is that of each container of ours: the init container and, beside the app, the sidecar. The limits of a \
             LimitRange of the namespace win over all of them, but in a pod that has `spec.resources`.\n\n\
             The injector itself writes `{}`, the names of the bindings that it put into the pod. A container that gets \
             signals (`onChange.signal`) has the variable `SEALPOD_CONTAINER` with its name; one that has another value there \
             is refused. Every container of the pod gets the supplementary group 64999, to which the files belong. Where the \
             proxy of Istio or Linkerd is a regular container, nothing of the init phase gets past it, and the server's port is \
             added to `traffic.sidecar.istio.io/excludeOutboundPorts` or `config.linkerd.io/skip-outbound-ports`.\n",
            annotations::markdown(),
            annotations::INJECTED,
        ),
    }
}

const HEADER: &str = "# Written by `cargo xtask generate` from the types in crds/src. Do not edit.\n";

/// The chart's copy: installed and kept as the values say.
///
/// In `templates`, not in the chart's `crds` folder, because Helm installs the latter once and never upgrades it.
fn chart_template(yaml: &str) -> Result<String> {
    const KEEP: &str = "metadata:\n  annotations:\n    {{- if .Values.crds.keep }}\n    \
                        helm.sh/resource-policy: keep\n    {{- end }}\n";
    const KEEP_ALONE: &str = "metadata:\n  {{- if .Values.crds.keep }}\n  annotations:\n    \
                              helm.sh/resource-policy: keep\n  {{- end }}\n";
    // Descriptions may speak of templates; Helm must not take them for its own.
    let escaped = yaml.replace("{{", "{{ \"{{\" }}");
    let (from, to) = if escaped.contains("\nmetadata:\n  annotations:\n") {
        ("metadata:\n  annotations:\n", KEEP)
    } else {
        ("metadata:\n", KEEP_ALONE)
    };
    let (before, after) = escaped
        .split_once(from)
        .context("a CustomResourceDefinition has metadata")?;
    Ok(format!(
        "{HEADER}{{{{- if .Values.crds.install }}}}\n{before}{to}{after}{{{{- end }}}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_copy_can_be_left_out_and_kept() {
        let template = chart_template("kind: CustomResourceDefinition\nmetadata:\n  name: x\nspec: 1\n").unwrap();
        assert_eq!(
            template,
            format!(
                "{HEADER}{{{{- if .Values.crds.install }}}}\nkind: CustomResourceDefinition\nmetadata:\n  \
                 {{{{- if .Values.crds.keep }}}}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{{{- end }}}}\n  \
                 name: x\nspec: 1\n{{{{- end }}}}\n"
            )
        );
    }

    #[test]
    fn the_annotations_that_users_read_about_are_those_that_there_are() {
        let file = annotations();
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&file.path);
        assert_eq!(fs::read_to_string(committed).unwrap(), file.content);
    }

    #[test]
    fn annotations_that_are_there_stay() {
        let template = chart_template("a: 1\nmetadata:\n  annotations:\n    b: c\n  name: x\n").unwrap();
        assert!(template.contains("keep\n    {{- end }}\n    b: c\n"), "{template}");
        assert_eq!(template.matches("annotations:").count(), 1);
    }

    #[test]
    fn braces_of_a_description_reach_the_cluster_as_they_are() {
        let template = chart_template("metadata:\n  name: x\ndescription: like {{ secrets.A }}\n").unwrap();
        assert!(template.contains(r#"like {{ "{{" }} secrets.A }}"#), "{template}");
    }

    #[test]
    fn a_file_that_is_missing_or_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            Generated {
                path: "same".into(),
                content: "1".into(),
            },
            Generated {
                path: "other".into(),
                content: "2".into(),
            },
            Generated {
                path: "gone".into(),
                content: "3".into(),
            },
        ];
        fs::write(dir.path().join("same"), "1").unwrap();
        fs::write(dir.path().join("other"), "old").unwrap();
        let error = require_current(dir.path(), &files).unwrap_err().to_string();
        assert!(
            error.starts_with("generated files are not up to date: other, gone"),
            "{error}"
        );
    }
}
