//! `dev`: a server for trying out, with keys of its own in a directory of its own.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use sealpod_core::SecretText;
use sealpod_runtime::{process, shutdown};

use super::serve::{block_on, start_log};
use super::{Failure, Outcome};
use crate::app;
use crate::config::{
    BackupArgs, Config, Environment, Faults, LOG, LogArgs, SIGNUP, SMTP_FROM, SMTP_URL, SUPERADMINS, ServeArgs,
    StorageArgs, StoreArgs,
};
use crate::crypto::generate_master_key;

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Directory of the database and the generated keys
    #[arg(
        long,
        env = "SEALPOD_DATA_DIR",
        value_name = "DIRECTORY",
        default_value = "sealpod-dev"
    )]
    data_dir: PathBuf,

    /// Address of the REST planes; of this machine only
    #[arg(
        long,
        env = "SEALPOD_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7100"
    )]
    listen: String,

    /// Address of `/metrics` and the probes; of this machine only
    #[arg(
        long,
        env = "SEALPOD_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7101"
    )]
    metrics_listen: String,

    /// `off`: do not serve `/docs` and `/openapi.json`
    #[arg(long, env = "SEALPOD_DOCS", value_name = "on|off", default_value = "on")]
    docs: String,
}

pub fn dev(args: &DevArgs, log: &LogArgs) -> Outcome {
    process::harden()?;
    let mut faults = Faults::default();
    start_log(log, &mut faults);
    let environment = Environment::of_process();
    environment.check(&mut faults);
    stay_on_this_machine(args, &mut faults);
    // Nothing is written for a server that will not start.
    faults.finish(Some(())).map_err(Failure::Configuration)?;
    let mut faults = Faults::default();
    let keys = Keys::prepare(&args.data_dir)?;
    let serve = serve_args(args, &keys, &environment);
    let config = Config::check(serve, &mail_only(&environment), &mut faults);
    let config = faults.finish(config).map_err(Failure::Configuration)?;
    let (directory, admin) = (args.data_dir.clone(), keys.read_admin()?);
    block_on(async {
        let ready = move |address| {
            // Somebody who closed the output does not need the welcome.
            let _ = io::stdout().write_all(welcome(address, &directory, &admin).as_bytes());
        };
        Ok(app::run(config, shutdown::signalled(), ready).await?)
    })
}

fn stay_on_this_machine(args: &DevArgs, faults: &mut Faults) {
    for (setting, address) in [
        ("SEALPOD_LISTEN", &args.listen),
        ("SEALPOD_METRICS_LISTEN", &args.metrics_listen),
    ] {
        if address
            .parse()
            .is_ok_and(|address: SocketAddr| !address.ip().is_loopback())
        {
            faults.add(
                setting,
                "must be an address of this machine only, such as 127.0.0.1:7100; `dev` is for trying out",
            );
        }
    }
}

/// The process's mail server, or the log: what else `serve` reads of the environment has other values here.
fn mail_only(environment: &Environment) -> Environment {
    let url = environment.get(SMTP_URL).unwrap_or(LOG);
    [(SMTP_URL.to_owned(), url.to_owned())].into_iter().collect()
}

fn serve_args(args: &DevArgs, keys: &Keys, environment: &Environment) -> ServeArgs {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    // Who may sign in, and how, can be tried out too.
    let given = |name: &str| environment.get(name).map(str::to_owned);
    ServeArgs {
        store: StoreArgs {
            database_url: format!("sqlite:{}", args.data_dir.join("sealpod.db").display()),
            master_key_file: Some(text(&keys.master)),
        },
        listen: args.listen.clone(),
        metrics_listen: args.metrics_listen.clone(),
        admin_api_key_file: Some(text(&keys.admin)),
        superadmins: given(SUPERADMINS),
        signup: given(SIGNUP).unwrap_or_else(|| "open".to_owned()),
        smtp_from: given(SMTP_FROM),
        tls_cert: None,
        tls_key: None,
        default_org: "default".to_owned(),
        // Whoever tries out their own scripts is not to be held up.
        rate_per_key: "0".to_owned(),
        trusted_proxies: None,
        docs: args.docs.clone(),
        trash_days: "30".to_owned(),
        audit_retain_days: "400".to_owned(),
        backup: BackupArgs {
            storage: StorageArgs {
                backup_url: backups(&args.data_dir),
                backup_recipients: None,
            },
            backup_schedule_hours: "0".to_owned(),
            backup_retain_daily_days: "7".to_owned(),
            backup_retain_weekly_weeks: "4".to_owned(),
        },
    }
}

/// Beside the data, which is there by now.
fn backups(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    url::Url::from_directory_path(directory.join("backups"))
        .ok()
        .map(String::from)
}

/// The files of the generated keys.
struct Keys {
    master: PathBuf,
    admin: PathBuf,
}

impl Keys {
    /// Makes the directory and the keys that are not there yet, readable for their owner only.
    fn prepare(directory: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| {
                format!(
                    "cannot make the directory {}; choose one with --data-dir",
                    directory.display()
                )
            })?;
        let keys = Self {
            master: directory.join("master.key"),
            admin: directory.join("admin.key"),
        };
        for path in [&keys.master, &keys.admin] {
            make(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(keys)
    }

    fn read_admin(&self) -> anyhow::Result<SecretText> {
        let text = fs::read_to_string(&self.admin).with_context(|| format!("cannot read {}", self.admin.display()))?;
        let key = text.lines().next().unwrap_or_default();
        Ok(SecretText::new(key.trim()))
    }
}

fn make(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(mut file) => writeln!(file, "{}", generate_master_key().expose()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn welcome(listen: SocketAddr, directory: &Path, admin: &SecretText) -> String {
    let (directory, key) = (directory.display(), admin.expose());
    format!(
        "
Sealpod for trying out: http://{listen}   (data and keys in {directory}; remove it to begin anew)

  admin key: {key}

Make an application, set a secret, read it:

  curl -sS -w '\\n' -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"name\":\"demo\"}}' http://{listen}/api/management/applications
  curl -sS -w '\\n' -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -X PUT -d '{{\"value\":\"hello\"}}' http://{listen}/api/orgs/default/projects/demo/envs/local/secrets/greeting
  curl -sS -w '\\n' -H 'Authorization: Bearer {key}' http://{listen}/api/orgs/default/projects/demo/envs/local/secrets/greeting

Ctrl-C stops it.

"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn generated_keys_are_kept_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("data");
        let keys = Keys::prepare(&directory).unwrap();
        let before = fs::read(&keys.master).unwrap();
        assert_ne!(before, fs::read(&keys.admin).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&directory), mode(&keys.master), mode(&keys.admin)),
            (0o700, 0o600, 0o600)
        );
        Keys::prepare(&directory).unwrap();
        assert_eq!(fs::read(&keys.master).unwrap(), before);
    }

    #[test]
    fn the_welcome_shows_three_commands_with_the_key_filled_in() {
        let text = welcome(
            "127.0.0.1:7100".parse().unwrap(),
            Path::new("d"),
            &SecretText::new("the-key"),
        );
        assert_eq!(text.matches("  curl ").count(), 3);
        assert_eq!(text.matches("Bearer the-key").count(), 3);
        assert!(text.contains("-d '{\"name\":\"demo\"}'"));
    }
}
