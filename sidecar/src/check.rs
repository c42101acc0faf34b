//! `check`: what a binding selects and what of it the server has, for people. Asks for names and versions only.

use std::fmt::Write as _;

use sealpod_client::Fetched;
use sealpod_core::injection::{BindingFile, MountedBinding};
use sealpod_core::wire::bundle::Bundle;

use crate::credentials::Credentials;
use crate::selection::{Finding, resolve};

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
    let (targets, findings) = resolve(binding, bundle);
    let mut text = String::new();
    for target in &targets {
        let version = bundle.secrets.get(&target.key).filter(|_| target.present);
        let state = version.map_or("nothing to write".to_owned(), |secret| {
            format!("version {}", secret.version)
        });
        let _ = writeln!(
            text,
            "  {} ({:o}) <- {:?}, {state}",
            target.path.as_str(),
            target.mode,
            target.key
        );
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
