//! `check`: what a binding selects and what of it the server has, for people. Asks for names and versions only.

use std::fmt::Write as _;

use sealpod_client::Fetched;
use sealpod_core::injection::{BindingFile, CombinedContent, CombinedFile, MountedBinding, Select};
use sealpod_core::wire::bundle::Bundle;

use crate::credentials::Credentials;
use crate::selection::{Finding, Source, Trouble, resolve};

/// What to print, and whether all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub good: bool,
}

pub async fn binding(server_url: &str, mounted: &MountedBinding) -> Report {
    let title = format!("binding {:?}, mounted at {}\n", mounted.name, mounted.mount_path);
    let failed = |what: String| Report {
        text: format!("{title}  {what}\n"),
        good: false,
    };
    let session = match Credentials::new(server_url, mounted).read() {
        Ok(session) => session,
        Err(error) => return failed(format!("the files of the key Secret cannot be used: {error}")),
    };
    let mut request = session.request.clone();
    request.values = false;
    let binding = &session.binding;
    let org = session.client.org(&binding.organization);
    match org.bundle(&binding.project, &binding.environment, &request, None).await {
        Ok(Fetched::Bundle(bundle)) => {
            let report = describe(binding, &bundle);
            Report {
                text: format!("{title}  from {server_url}, {}\n{}", source(binding), report.text),
                ..report
            }
        }
        Ok(Fetched::NotModified) => failed("the server answers what was not asked".to_owned()),
        Err(error) => failed(format!("{}: {error}", source(binding))),
    }
}

fn source(binding: &BindingFile) -> String {
    format!(
        "organization {:?}, application {:?}, environment {:?}",
        binding.organization, binding.project, binding.environment
    )
}

/// One line a file, one a finding. Names are the server's: they are quoted.
fn describe(binding: &BindingFile, bundle: &Bundle) -> Report {
    let (targets, mut findings) = resolve(binding, bundle);
    let mut text = String::new();
    for target in &targets {
        let content = match &target.source {
            Source::Secret { key, .. } => {
                let version = bundle.secrets.get(key).filter(|_| target.present);
                version.map_or(format!("{key:?}, nothing to write"), |secret| {
                    format!("{key:?}, version {}", secret.version)
                })
            }
            Source::Configuration(key) => format!("configuration {key:?}"),
            Source::Configurations(format) => {
                format!("{} configurations as {format:?}", bundle.configurations.len()).to_lowercase()
            }
            Source::Combined(index) => {
                let (content, finding) = combined(&binding.files[*index]);
                findings.extend(finding);
                content
            }
        };
        let _ = writeln!(text, "  {} ({:o}) <- {content}", target.path.as_str(), target.mode);
    }
    if targets.is_empty() {
        let _ = writeln!(text, "  no files");
    }
    for finding in &findings {
        let weight = if finding.required { "wrong" } else { "note" };
        let _ = writeln!(text, "  {weight}: {finding}");
    }
    Report {
        text,
        good: !findings.iter().any(Finding::is_required),
    }
}

/// What a file of several values is made of, and what is wrong with its template whatever the values are.
fn combined(file: &CombinedFile) -> (String, Option<Finding>) {
    match &file.content {
        CombinedContent::Values { format, include } => {
            let which = include.as_ref().map_or("every selected secret".to_owned(), |include| {
                let names = include.iter().map(|select| match select {
                    Select::Name(name) => format!("{name:?}"),
                    Select::Pattern(pattern) => format!("pattern {:?}", pattern.as_str()),
                });
                names.collect::<Vec<_>>().join(", ")
            });
            (format!("{} of {which}", format!("{format:?}").to_lowercase()), None)
        }
        CombinedContent::Template(source) => {
            let finding = sealpod_render::check_template(source).err().map(|error| Finding {
                selector: file.path.to_string(),
                trouble: Trouble::Unmade(error.to_string()),
                required: true,
            });
            ("template".to_owned(), finding)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_names_files_versions_and_what_is_wrong() {
        let binding: BindingFile = serde_json::from_value(json!({
            "organization": "o", "project": "p", "environment": "e", "mode": 0o440, "refreshInterval": 30, "watch": true,
            "secrets": [
                {"name": "db/password", "path": "db/password", "optional": false},
                {"name": "gone", "optional": false}, {"name": "maybe", "optional": true},
            ],
        }))
        .unwrap();
        let bundle: Bundle = serde_json::from_value(json!({
            "etag": "e", "next_change_at": null, "secrets": {"db/password": {"version": 3}},
            "missing": ["gone"], "denied": ["maybe"],
        }))
        .unwrap();
        let report = describe(&binding, &bundle);
        let want = r#"  db/password (440) <- "db/password", version 3
  gone (440) <- "gone", nothing to write
  wrong: "gone" has no active value in this environment: set one
  note: "maybe" is refused to this binding's account: check its access rules
"#;
        assert_eq!((report.text.as_str(), report.good), (want, false));
    }
}
