//! wrk: the load of the comparison, one and the same for both servers.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::child;
use crate::prerequisites;
use crate::process::{self, Failure};

/// What is asked for, again and again.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: &'static str,
    pub address: SocketAddr,
    pub method: &'static str,
    /// `{n}` in it is five digits of a number below `keys`, another one for each request.
    pub path: String,
    pub keys: usize,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<String>,
    /// The status of every answer.
    pub expect: u16,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub requests: u64,
    pub took: Duration,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Load {
    /// Answers in a second.
    #[allow(clippy::cast_precision_loss, reason = "shown without decimals")]
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

#[derive(Debug)]
pub struct Wrk {
    script: PathBuf,
    plan: PathBuf,
    scheme: &'static str,
}

impl Wrk {
    pub fn prepare(directory: &Path) -> Result<Self> {
        let script = directory.join("load.lua");
        std::fs::write(&script, include_str!("load.lua"))
            .with_context(|| format!("cannot write {}", script.display()))?;
        Ok(Self {
            script,
            plan: directory.join("plan.lua"),
            scheme: "http",
        })
    }

    /// Over TLS; whose the certificate is, it does not ask.
    pub fn over_tls(self) -> Self {
        Self {
            scheme: "https",
            ..self
        }
    }

    /// Looks at the status of every answer, which takes time: for the warm-up.
    pub fn check(&self, plan: &Plan, connections: usize) -> Result<Load> {
        self.wrk(plan, connections, 1, true)
    }

    /// wrk itself fails what is answered with an error.
    pub fn run(&self, plan: &Plan, connections: usize, seconds: u64) -> Result<Load> {
        self.wrk(plan, connections, seconds, false)
    }

    fn wrk(&self, plan: &Plan, connections: usize, seconds: u64, check: bool) -> Result<Load> {
        write_private(&self.plan, &plan.lua())?;
        let program = prerequisites::find("wrk").context("wrk was installed before")?;
        let mut command = child::command(&program);
        // In a file, because everybody on the machine can read arguments.
        command
            .env("SEALPOD_BENCH_PLAN", &self.plan)
            .env_remove("SEALPOD_BENCH_CHECK");
        if check {
            command.env("SEALPOD_BENCH_CHECK", "1");
        }
        command.args(["--threads", "1", "--connections", &connections.to_string()]);
        command
            .args(["--duration", &format!("{seconds}s"), "--script"])
            .arg(&self.script);
        command
            .arg(format!("{}://{}", self.scheme, plan.address))
            .stdin(Stdio::null());
        let output = process::capture(&mut command)?;
        load(plan.name, &output)
    }
}

impl Plan {
    /// As the script reads it.
    fn lua(&self) -> String {
        let mut text = format!(
            "return {{\n  method = {}, path = {}, keys = {}, expect = {},\n  headers = {{",
            quoted(self.method),
            quoted(&self.path),
            self.keys,
            self.expect
        );
        for (name, value) in &self.headers {
            let _ = write!(text, " [{}] = {},", quoted(name), quoted(value));
        }
        if self.body.is_some() {
            text += " [\"content-type\"] = \"application/json\"";
        }
        text += " },\n";
        if let Some(body) = &self.body {
            let _ = writeln!(text, "  body = {},", quoted(body));
        }
        text + "}\n"
    }
}

/// A string of Lua.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted += "\\n",
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The line that the script printed behind wrk's own.
fn load(name: &str, output: &str) -> Result<Load> {
    let line = output.lines().find_map(|line| line.strip_prefix("bench "));
    let fields: Vec<(&str, u64)> = line
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.split_once('='))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect();
    let field = |wanted: &str| {
        let found = fields
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, number)| *number);
        found.ok_or_else(|| Failure::new(format!("wrk does not say `{wanted}` of {name}")).output(output.as_bytes()))
    };
    let (failed, refused, wrong) = (field("failed")?, field("refused")?, field("wrong")?);
    if failed + refused + wrong > 0 {
        let status = field("status")?;
        return Err(Failure::new(format!(
            "{name}: {failed} connections broke, {refused} answers were errors, and {wrong} had another status than \
             they should (the last one: {status})"
        ))
        .output(output.as_bytes())
        .into());
    }
    if field("requests")? == 0 {
        return Err(Failure::new(format!("{name}: nothing was answered"))
            .output(output.as_bytes())
            .into());
    }
    let time = |name| field(name).map(Duration::from_micros);
    Ok(Load {
        requests: field("requests")?,
        took: time("took")?,
        p50: time("p50")?,
        p99: time("p99")?,
        max: time("max")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 5s test @ http://127.0.0.1:1\n  1 threads and 16 connections\nRequests/sec: 9\n\
                          bench requests=1500 took=5000000 p50=900 p99=4200 max=9000 failed=0 refused=0 wrong=0 \
                          status=0\n";

    #[test]
    fn the_figures_are_those_of_the_scripts_line() {
        let load = load("read", OUTPUT).unwrap();
        assert_eq!((load.requests, load.took), (1_500, Duration::from_secs(5)));
        let micros = [load.p50, load.p99, load.max].map(|time| time.as_micros());
        assert_eq!(micros, [900, 4_200, 9_000]);
        assert!((299.0..301.0).contains(&load.rate()));
    }

    #[test]
    fn an_answer_that_is_no_success_fails_the_run() {
        for (field, bad) in [
            ("failed=0", "failed=1"),
            ("refused=0", "refused=3"),
            ("wrong=0", "wrong=2"),
            ("requests=1500", "requests=0"),
        ] {
            let error = load("read", &OUTPUT.replace(field, bad)).unwrap_err().to_string();
            assert!(error.starts_with("read: "), "{error}");
        }
        let error = load("read", "unable to connect to 127.0.0.1:1\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("does not say") && error.contains("| unable to connect"),
            "{error}"
        );
    }

    #[test]
    fn a_plan_is_lua_whatever_is_in_it() {
        let plan = Plan {
            name: "write",
            address: "127.0.0.1:1".parse().unwrap(),
            method: "PUT",
            path: "/key-{n}".to_owned(),
            keys: 10,
            headers: vec![("x-api-key", "a\"b\\c".to_owned())],
            body: Some("{\"value\":\"x\"}".to_owned()),
            expect: 200,
        };
        assert_eq!(
            plan.lua(),
            "return {\n  method = \"PUT\", path = \"/key-{n}\", keys = 10, expect = 200,\n  headers = { [\"x-api-key\"] = \
             \"a\\\"b\\\\c\", [\"content-type\"] = \"application/json\" },\n  body = \"{\\\"value\\\":\\\"x\\\"}\",\n}\n"
        );
    }
}
