//! The api-server of the release, called through `kubectl port-forward` as an administrator would.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use data_encoding::BASE64;
use sealpod_client::{Client, Credential, Error};
use sealpod_core::wire::management::{CreateSecret, SetValue};
use sealpod_core::{Encoding, SecretText};
use tokio::runtime::Runtime;

use super::release::{NAMESPACE, object};
use super::tools::Tools;
use crate::process::{self, Failure};

/// kubectl is killed when nobody holds the other end of its input any more, even where this process is killed itself.
const WITH_US: &str = r#""$@" </dev/null & child=$!; exec >&-; read -r _; kill "$child" 2>&-; wait "$child""#;

/// An open way to the api-server.
pub struct Server<'a> {
    client: Client,
    runtime: &'a Runtime,
    _forward: Forward,
}

/// A running `kubectl port-forward`.
struct Forward {
    port: u16,
    shell: Child,
    input: Option<ChildStdin>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        // The shell reads the end of its input, and ends kubectl.
        self.input.take();
        let _ = self.shell.wait();
    }
}

impl<'a> Server<'a> {
    /// Opens it on a port that is free, with the admin key and the CA from the Secrets of the release.
    pub fn open(tools: &Tools, runtime: &'a Runtime) -> Result<Self> {
        let forward = Forward::open(tools)?;
        let client = Client::builder(format!("https://localhost:{}", forward.port))
            .credential(Credential::Admin(SecretText::new(entry(
                tools,
                "admin-key",
                "admin.key",
            )?)))
            .ca(entry(tools, "server-tls", "ca.crt")?)
            .user_agent("sealpod-demo")
            .build()?;
        Ok(Self {
            client,
            runtime,
            _forward: forward,
        })
    }

    /// Makes the slot of a secret unless it is there.
    pub fn create_secret(&self, application: &str, name: &str) -> Result<()> {
        let slot = CreateSecret {
            name: name.to_string(),
            description: None,
        };
        match self
            .runtime
            .block_on(self.client.management().create_secret(application, &slot))
        {
            Ok(_) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("the server does not make the secret {name}")),
        }
    }

    /// Sets the value that is in force from now on.
    pub fn set(&self, application: &str, environment: &str, name: &str, value: &str) -> Result<()> {
        let value = SetValue {
            environment_slug: environment.to_string(),
            value: SecretText::new(value),
            encoding: Encoding::Utf8,
            is_enabled: true,
            expires_at: None,
            not_before: None,
        };
        let values = [value];
        let set = self.client.management();
        self.runtime
            .block_on(set.set_values(application, name, &values))
            .with_context(|| format!("the server does not take the value of {name}"))
    }
}

impl Forward {
    fn open(tools: &Tools) -> Result<Self> {
        let service = format!("service/{}", object("api-server"));
        let forward = tools.kubectl([
            "port-forward",
            "--namespace",
            NAMESPACE,
            "--address=localhost",
            &service,
            ":7100",
        ]);
        let log = tools.log("port-forward");
        // The service may have no endpoint for a moment after a rollout.
        for _ in 0..5 {
            if let Some(open) = Self::try_open(&forward, &log)? {
                return Ok(open);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Err(Failure::new("`kubectl port-forward` to the api-server ended at once")
            .log(&log)
            .advice(format!(
                "look at the server: kubectl --namespace {NAMESPACE} describe {service}"
            ))
            .into())
    }

    fn try_open(forward: &Command, log: &std::path::Path) -> Result<Option<Self>> {
        let mut command = with_us(forward);
        command.stderr(process::append_to(log)?);
        let mut shell = command.spawn().context("cannot start sh")?;
        let input = shell.stdin.take();
        let stdout = shell.stdout.take().context("its output is a pipe")?;
        let mut forward = Self { port: 0, shell, input };
        let mut lines = BufReader::new(stdout).lines();
        let Some(line) = lines.next() else { return Ok(None) };
        let line = line.context("kubectl port-forward prints text")?;
        forward.port = forwarded_port(&line).with_context(|| format!("kubectl port-forward says {line:?}"))?;
        // Were nobody to read on, kubectl would stop at its next line.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Some(forward))
    }
}

/// `command`, ended as soon as the other end of its standard input is closed.
fn with_us(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", WITH_US, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    shell
}

/// The port in `Forwarding from 127.0.0.1:43211 -> 7100`.
fn forwarded_port(line: &str) -> Option<u16> {
    let (from, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    from.rsplit_once(':')?.1.parse().ok()
}

/// An entry of a Secret that the bootstrap Job made.
fn entry(tools: &Tools, secret: &str, key: &str) -> Result<String> {
    let name = object(secret);
    let found = tools.get(&["secret", &name, "--namespace", NAMESPACE])?;
    let encoded = found.and_then(|secret| secret["data"][key].as_str().map(ToString::to_string));
    let decoded = encoded.and_then(|text| BASE64.decode(text.as_bytes()).ok());
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .with_context(|| format!("the Secret {name} has no {key}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_port_is_read_for_either_address() {
        assert_eq!(forwarded_port("Forwarding from 127.0.0.1:43211 -> 7100"), Some(43211));
        assert_eq!(forwarded_port("Forwarding from [::1]:43211 -> 7100"), Some(43211));
        assert_eq!(forwarded_port("error: lost connection to pod"), None);
    }

    #[test]
    fn a_helper_ends_with_its_input_and_its_end_is_seen() {
        let mut long = Command::new("sh");
        long.args(["-c", "echo $$; exec sleep 60"]);
        let mut shell = with_us(&long).spawn().unwrap();
        let input = shell.stdin.take();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let process = std::path::Path::new("/proc").join(line.trim());
        assert!(process.exists());
        drop(input);
        shell.wait().unwrap();
        let begun = Instant::now();
        while process.exists() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!process.exists(), "the helper went with its input");

        let mut ended = with_us(&Command::new("false")).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(ended.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "", "its end closes the output");
        drop(ended.stdin.take());
        ended.wait().unwrap();
    }
}
