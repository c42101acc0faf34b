//! `/docs` as a person uses it: opens it, gives it the admin key, makes a call and reads the answer.

use std::time::Duration;

use anyhow::Result;

use super::browser::Browser;
use super::server::{Caller, Server};
use crate::prerequisites;
use crate::process::Failure;
use crate::workspace::Workspace;

/// For all of it.
const WITHIN: Duration = Duration::from_mins(1);

const STEPS: &str = include_str!("page.js");

pub fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("docs-page");
    let mut server = Server::start(workspace, &folder)?;
    server.populate(Caller::Nobody)?;
    let mut browser = Browser::start(&prerequisites::find_browser()?, &folder, WITHIN)?;
    let url = format!("{}/docs", server.url);
    browser.call("Page.navigate", &serde_json::json!({"url": url}))?;
    let used = use_it(&mut browser, &server.admin);
    // Read in any case: what the page complains about is why it does not work.
    let complaints = browser.complaints();
    if !complaints.is_empty() {
        let list = complaints.join("\n  ");
        return Err(Failure::new(format!("{url} complains:\n  {list}"))
            .advice(ADVICE)
            .into());
    }
    used?;
    let own = server.url.trim_start_matches("http://");
    match browser.hosts().into_iter().find(|host| host != own && !host.is_empty()) {
        Some(host) => Err(Failure::new(format!("{url} asks {host}; it must ask nobody but its own server")).into()),
        None => Ok(()),
    }
}

const ADVICE: &str = "see api-server/src/docs: everything has to work under the page's Content-Security-Policy";

fn use_it(browser: &mut Browser, admin: &str) -> Result<()> {
    // In a function of its own, for the page has a namespace of its own.
    browser.evaluate(&format!("(() => {{ {STEPS} }})()"))?;
    browser.evaluate("rendered()")?;
    let key = serde_json::Value::from(admin);
    browser.evaluate(&format!("authorise('admin_key', {key})"))?;
    let answer = browser.evaluate("execute('applications', 'applications_list')")?;
    let [status, body] = [0, 1].map(|at| answer[at].as_str().unwrap_or_default());
    if status.starts_with("200") && body.contains("payments-api") {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the page shows another answer than it should: {status}\n{body}"
    ))
    .into())
}
