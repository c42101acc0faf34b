//! Headless Chromium, driven over its debugging protocol.
//!
//! Over its pipe (JSON texts with a zero byte behind each) rather than its WebSocket, so it needs no library, no port and
//! nobody else on this machine can drive the browser.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::Failure;

/// Chromium reads file descriptor 3 and writes 4; it gets its standard input and output for these.
const ON_OUR_PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >&2"#;

/// One page. Killed when dropped.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: mpsc::Receiver<Value>,
    events: VecDeque<Value>,
    session: String,
    last_id: u64,
    deadline: Instant,
}

impl Browser {
    /// Starts `program` with an empty profile in `folder`; nothing is waited for longer than `within`, all in all.
    pub fn start(program: &Path, folder: &Path, within: Duration) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", ON_OUR_PIPES, "sh"]).arg(program).args([
            "--headless",
            "--remote-debugging-pipe",
            // Its own sandbox does not work as root, which CI is, and the one page that it opens is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--window-size=1400,1800",
        ]);
        command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
        let log = std::fs::File::create(folder.join("browser.log")).context("cannot write the browser's log")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take().context("the input is a pipe")?;
        let messages = receive(child.stdout.take().context("the output is a pipe")?);
        let mut browser = Self {
            child,
            input,
            messages,
            events: VecDeque::new(),
            session: String::new(),
            last_id: 0,
            deadline: Instant::now() + within,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach)?;
        session["sessionId"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut browser.session);
        for domain in [
            "Runtime.enable",
            "Log.enable",
            "Page.enable",
            "Audits.enable",
            "Network.enable",
        ] {
            browser.call(domain, &json!({}))?;
        }
        Ok(browser)
    }

    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let mut message = self.receive(method)?;
            if message["id"] != self.last_id {
                self.events.push_back(message);
            } else if message["error"].is_object() {
                return Err(Failure::new(format!("the browser refuses {method}: {}", message["error"])).into());
            } else {
                return Ok(message["result"].take());
            }
        }
    }

    fn receive(&self, waiting_for: &str) -> Result<Value> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.messages.recv_timeout(left).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => "took too long",
                RecvTimeoutError::Disconnected => "ended",
            };
            Failure::new(format!("the browser {why} at {waiting_for}")).into()
        })
    }

    /// The value of a JavaScript expression in the page; a promise is waited for.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", &parameters)?;
        if result["exceptionDetails"].is_object() {
            let why = &result["exceptionDetails"]["exception"]["description"];
            return Err(Failure::new(format!("in the page: {}", why.as_str().unwrap_or("an exception"))).into());
        }
        Ok(result["result"]["value"].take())
    }

    /// What the page complained about so far: violations of its policy, errors and warnings of the console, exceptions,
    /// and answers that failed.
    pub fn complaints(&mut self) -> Vec<String> {
        self.events.extend(self.messages.try_iter());
        self.events.iter().filter_map(complaint).collect()
    }

    /// Hosts of the requests that the page made.
    pub fn hosts(&mut self) -> Vec<String> {
        self.events.extend(self.messages.try_iter());
        let sent = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        let urls = sent.filter_map(|event| event["params"]["request"]["url"].as_str());
        // An address within a `data:` URL asks nobody.
        let asked = urls.filter_map(|url| url.strip_prefix("http://").or(url.strip_prefix("https://")));
        let hosts = asked.filter_map(|rest| rest.split('/').next());
        hosts.map(str::to_owned).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads messages on a thread of its own, so that waiting for one can end.
fn receive(output: ChildStdout) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut text = Vec::new();
            if output.read_until(0, &mut text).unwrap_or_default() == 0 {
                return;
            }
            let message = serde_json::from_slice(text.strip_suffix(b"\0").unwrap_or(&text)).unwrap_or_default();
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

fn complaint(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    match event["method"].as_str()? {
        "Log.entryAdded" => {
            let entry = &parameters["entry"];
            let is_bad = entry["level"] == "error" || entry["level"] == "warning";
            is_bad.then(|| format!("console: {} {}", entry["text"], entry["url"]))
        }
        "Runtime.consoleAPICalled" => {
            let is_bad = parameters["type"] == "error" || parameters["type"] == "assert";
            is_bad.then(|| format!("console: {}", parameters["args"]))
        }
        "Runtime.exceptionThrown" => {
            let details = &parameters["exceptionDetails"];
            Some(format!(
                "exception: {} {}",
                details["text"], details["exception"]["description"]
            ))
        }
        "Audits.issueAdded" => {
            let details = &parameters["issue"]["details"]["contentSecurityPolicyIssueDetails"];
            details
                .is_object()
                .then(|| format!("Content-Security-Policy: {details}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_says_is_a_complaint_only_if_something_is_wrong() {
        let fine = json!({"method": "Runtime.consoleAPICalled", "params": {"type": "log", "args": ["hello"]}});
        assert_eq!(complaint(&fine), None);
        let policy = json!({"method": "Audits.issueAdded", "params": {"issue": {"details": {
            "contentSecurityPolicyIssueDetails": {"violatedDirective": "style-src-attr"}}}}});
        assert!(complaint(&policy).unwrap().contains("style-src-attr"));
        let entry = json!({"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": "Refused"}}});
        assert!(complaint(&entry).unwrap().contains("Refused"));
    }
}
