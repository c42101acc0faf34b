//! The arguments of `exec`.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::process::Signal;
use sealpod_core::Pattern;

/// Where the values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Mounts of delivered files.
    Files(Vec<PathBuf>),
    /// A server and a service account's key.
    Server {
        url: String,
        key_file: PathBuf,
        ca_file: Option<PathBuf>,
        organization: String,
        project: String,
        environment: String,
    },
}

/// What a change does to a command that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Ends it, and runs it anew with the new values.
    Restart,
    /// Sends it a signal; its environment stays what it was.
    Signal(Signal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub from: From,
    /// Which keys, or paths of files; none = all.
    pub only: Vec<Pattern>,
    pub watch: Option<Watch>,
    pub command: OsString,
    pub arguments: Vec<OsString>,
}

pub const USAGE: &str = "usage: sealpod-sidecar exec --from <mount> [--from <mount>…] [options] -- <command> [argument…]
       sealpod-sidecar exec --url <url> --key-file <file> --project <slug> --environment <slug>
                            [--organization <name>] [--ca-file <file>] [options] -- <command> [argument…]

  --from <mount>      read the files that were delivered there
  --url, --key-file   read from the server, with a service account's key
  --only <pattern>    take only these keys (or paths below the mount); repeats
  --watch restart     when a value changes, end the command and run it anew
  --watch signal      when a value changes, send it SIGHUP; or signal=SIGUSR1

Exit code: that of the command, 128 and the signal that ended it; 127 and 126 where it cannot be found or run, 125 where the
values cannot be had.";

impl Options {
    /// Parses what follows `exec`. The error is for people.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments;
        let mut given = Given::default();
        loop {
            let option = arguments.next().ok_or("the command is missing: write it after `--`")?;
            let option = option.to_str().ok_or("an option is not text")?.to_owned();
            if option == "--" {
                break;
            }
            let (name, value) = if let Some((name, value)) = option.split_once('=') {
                (name.to_owned(), OsString::from(value))
            } else {
                let value = arguments.next().ok_or_else(|| format!("{option} has no value"))?;
                (option, value)
            };
            given.take(&name, value)?;
        }
        let command = arguments.next().ok_or("the command is missing: write it after `--`")?;
        Ok(Self {
            only: std::mem::take(&mut given.only),
            watch: given.watch,
            from: given.from()?,
            command,
            arguments: arguments.collect(),
        })
    }
}

#[derive(Debug, Default)]
struct Given {
    from: Vec<PathBuf>,
    url: Option<String>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    organization: Option<String>,
    project: Option<String>,
    environment: Option<String>,
    only: Vec<Pattern>,
    watch: Option<Watch>,
}

impl Given {
    fn take(&mut self, name: &str, value: OsString) -> Result<(), String> {
        let text = || {
            value
                .to_str()
                .map(str::to_owned)
                .ok_or(format!("the value of {name} is not text"))
        };
        match name {
            "--from" => self.from.push(value.into()),
            "--key-file" => self.key_file = Some(value.into()),
            "--ca-file" => self.ca_file = Some(value.into()),
            "--url" => self.url = Some(text()?),
            "--organization" => self.organization = Some(text()?),
            "--project" => self.project = Some(text()?),
            "--environment" => self.environment = Some(text()?),
            "--only" => self
                .only
                .push(text()?.parse().map_err(|error| format!("--only {error}"))?),
            "--watch" => self.watch = Some(watch(&text()?)?),
            _ => return Err(format!("{name} is no option of exec")),
        }
        Ok(())
    }

    fn from(self) -> Result<From, String> {
        let server =
            self.url.is_some() || self.key_file.is_some() || self.project.is_some() || self.environment.is_some();
        if !self.from.is_empty() {
            return if server {
                Err(
                    "--from reads files, and --url, --key-file, --project and --environment a server: give one of both"
                        .to_owned(),
                )
            } else {
                Ok(From::Files(self.from))
            };
        }
        let missing = |option: &str| {
            format!("{option} is missing: give --from, or a server with --url, --key-file, --project and --environment")
        };
        Ok(From::Server {
            url: self.url.ok_or_else(|| missing("--url"))?,
            key_file: self.key_file.ok_or_else(|| missing("--key-file"))?,
            ca_file: self.ca_file,
            organization: self.organization.unwrap_or_else(|| "default".to_owned()),
            project: self.project.ok_or_else(|| missing("--project"))?,
            environment: self.environment.ok_or_else(|| missing("--environment"))?,
        })
    }
}

fn watch(text: &str) -> Result<Watch, String> {
    match text {
        "restart" => Ok(Watch::Restart),
        "signal" => Ok(Watch::Signal(Signal::HUP)),
        _ => text
            .strip_prefix("signal=")
            .and_then(crate::notify::signal_of_name)
            .map(Watch::Signal)
            .ok_or_else(|| format!("--watch takes restart, signal or signal=SIGHUP, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn files_or_a_server_and_then_the_command() {
        let options = parse("--from /a --from=/b --only db-* --watch signal=SIGUSR1 -- env -i --from x").unwrap();
        assert_eq!(options.from, From::Files(vec!["/a".into(), "/b".into()]));
        assert_eq!(options.only[0].as_str(), "db-*");
        assert_eq!(options.watch, Some(Watch::Signal(Signal::USR1)));
        assert_eq!((options.command, options.arguments.len()), ("env".into(), 3));
        let options = parse("--url http://h --key-file k --project p --environment e -- env").unwrap();
        let From::Server { organization, .. } = options.from else {
            panic!("it is a server");
        };
        assert_eq!(organization, "default");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, said) in [
            ("", "command is missing"),
            ("--from /a --", "command is missing"),
            ("--from", "no value"),
            ("-- env", "--url is missing"),
            (
                "--url http://h --key-file k --project p -- env",
                "--environment is missing",
            ),
            ("--from /a --url http://h -- env", "one of both"),
            ("--from /a --watch never -- env", "--watch takes"),
            ("--from /a --watch signal=SIGKILL -- env", "--watch takes"),
            ("--from /a --only {a -- env", "--only"),
            ("--key cr_sa_x -- env", "--key is no option"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
