//! The configuration: flags or environment variables, read once and checked in full before anything else happens.

mod backup;
mod environment;
mod mail;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use sealpod_core::names;
use sealpod_runtime::files::{self, FileSet};
use sealpod_runtime::tls;
use zeroize::Zeroizing;

pub use backup::{BackupArgs, StorageArgs};
pub use environment::Environment;
pub use mail::{LOG, SIGNUP, SMTP_FROM, SMTP_URL};

use crate::auth::admin_key::{self, AdminKeys};
use crate::auth::superadmins::Superadmins;
use crate::backup::Settings;
use crate::backup::schedule::Schedule;
use crate::crypto::Keyring;
use crate::limits;
use crate::login::Signup;
use crate::mail::Transport;
use crate::maintenance::TrashDays;
use crate::retention::Retention;
use crate::store;

/// What is never a flag: an argument can be read by everybody on the machine.
const MASTER_KEY: &str = "SEALPOD_MASTER_KEY";
pub const ADMIN_API_KEY: &str = "SEALPOD_ADMIN_API_KEY";
/// A flag as well, and read by `dev` too.
pub const SUPERADMINS: &str = "SEALPOD_SUPERADMINS";

/// Where the data is and what opens it.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Database: `sqlite:` and the path of its file
    #[arg(
        long,
        env = "SEALPOD_DATABASE_URL",
        value_name = "URL",
        default_value = "sqlite:sealpod.db"
    )]
    pub database_url: String,

    /// File of master keys, 64 hex characters a line, the first one current [or one key in `SEALPOD_MASTER_KEY`]
    #[arg(long, env = "SEALPOD_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<String>,
}

/// Everything that `serve` can be told. Text until it is checked, so that one start names every fault.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub store: StoreArgs,

    /// Address of the REST planes
    #[arg(
        long,
        env = "SEALPOD_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7100"
    )]
    pub listen: String,

    /// Address of `/metrics` and the probes
    #[arg(
        long,
        env = "SEALPOD_METRICS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7101"
    )]
    pub metrics_listen: String,

    /// File of the admin key, at least 32 characters; two lines are two valid keys [or one key in
    /// `SEALPOD_ADMIN_API_KEY`]
    #[arg(long, env = "SEALPOD_ADMIN_API_KEY_FILE", value_name = "FILE")]
    pub admin_api_key_file: Option<String>,

    /// Addresses of the people who may do everything, separated by commas
    #[arg(long, env = "SEALPOD_SUPERADMINS", value_name = "EMAILS")]
    pub superadmins: Option<String>,

    /// Who may sign in by e-mail code: `open` for any address, `invited` for those that were invited [the mail server is
    /// `SEALPOD_SMTP_URL`: `log`, or smtp[s]://user:password@host:port; nobody can sign in without it]
    #[arg(long, env = "SEALPOD_SIGNUP", value_name = "open|invited", default_value = "open")]
    pub signup: String,

    /// Sender of the mails with login codes: `login@example.com`, or `Name <login@example.com>`
    #[arg(long, env = "SEALPOD_SMTP_FROM", value_name = "ADDRESS")]
    pub smtp_from: Option<String>,

    /// File of the TLS certificate chain (PEM); served again when it changes
    #[arg(long, env = "SEALPOD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<String>,

    /// File of the TLS certificate's key (PEM)
    #[arg(long, env = "SEALPOD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,

    /// Organization in which the management plane works; made at start
    #[arg(long, env = "SEALPOD_DEFAULT_ORG", value_name = "NAME", default_value = "default")]
    pub default_org: String,

    /// Requests a second that one key may make, with a burst of 10000; 0: without limit
    #[arg(long, env = "SEALPOD_RATE_PER_KEY", value_name = "NUMBER", default_value = "200")]
    pub rate_per_key: String,

    /// Proxies whose `X-Forwarded-For` counts: addresses and networks, separated by commas
    #[arg(long, env = "SEALPOD_TRUSTED_PROXIES", value_name = "NETWORKS")]
    pub trusted_proxies: Option<String>,

    /// `on`: serve `/docs` and `/openapi.json` to anyone
    #[arg(long, env = "SEALPOD_DOCS", value_name = "on|off", default_value = "off")]
    pub docs: String,
    /// Days for which what was deleted can be restored, 1 to 3650; then it is purged
    #[arg(long, env = "SEALPOD_TRASH_DAYS", value_name = "DAYS", default_value = "30")]
    pub trash_days: String,

    /// Days after which entries of the audit log are exported to where the backups are, and dropped; 0: never
    #[arg(long, env = "SEALPOD_AUDIT_RETAIN_DAYS", value_name = "DAYS", default_value = "400")]
    pub audit_retain_days: String,

    #[command(flatten)]
    pub backup: BackupArgs,
}

#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Log level, or `target=level` pairs: `info,sealpod_api_server=debug`
    #[arg(
        long,
        env = "SEALPOD_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    pub log: String,

    /// `text` or `json`
    #[arg(
        long,
        env = "SEALPOD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub log_format: String,
}

/// The checked configuration of a server.
pub struct Config {
    pub listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    pub store: StoreConfig,
    pub admin_keys: AdminKeys,
    /// The file that the admin keys came from, to be followed.
    pub admin_key_file: Option<FileSet>,
    pub superadmins: Superadmins,
    pub signup: Signup,
    /// How login codes are sent; without it nobody can sign in by code.
    pub mail: Option<Transport>,
    /// Plain HTTP without it.
    pub tls: Option<tls::Reloading>,
    pub default_organization: String,
    pub limits: limits::Settings,
    /// Whether the page and the document of the API are served.
    pub docs: bool,
    pub trash: TrashDays,
    pub audit_retention: Retention,
    pub backups: Settings,
    pub backup_schedule: Schedule,
}

pub struct StoreConfig {
    pub options: store::Options,
    pub keyring: Keyring,
    /// The file that the keys came from, to be followed.
    pub master_key_file: Option<PathBuf>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Notes what is wrong with a setting.
    pub fn add(&mut self, setting: &str, why: impl fmt::Display) {
        self.0.push(format!("{setting}: {why}"));
    }

    /// `Ok` of what was read, where nothing is wrong.
    pub fn finish<T>(self, read: Option<T>) -> Result<T, Self> {
        match read {
            Some(read) if self.0.is_empty() => Ok(read),
            _ => Err(self),
        }
    }

    fn check<T, E: fmt::Display>(&mut self, setting: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|why| self.add(setting, why)).ok()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    pub fn check(args: ServeArgs, environment: &Environment, faults: &mut Faults) -> Option<Self> {
        let ServeArgs {
            store,
            listen,
            metrics_listen,
            admin_api_key_file,
            superadmins,
            signup,
            smtp_from,
            tls_cert,
            tls_key,
            default_org,
            rate_per_key,
            trusted_proxies,
            docs,
            trash_days,
            audit_retain_days,
            backup,
        } = args;
        let store = StoreConfig::check(store, environment, faults);
        let listen = address("SEALPOD_LISTEN", &listen, faults);
        let metrics_listen = address("SEALPOD_METRICS_LISTEN", &metrics_listen, faults);
        let admin = admin_keys(given(admin_api_key_file), environment, faults);
        let superadmins = superadmins.as_deref().unwrap_or_default().parse();
        let superadmins = faults.check(SUPERADMINS, superadmins);
        let signup = mail::signup(&signup, faults);
        let mail = mail::transport(given(smtp_from), environment, faults);
        let tls = tls_files(given(tls_cert), given(tls_key), faults);
        faults.check("SEALPOD_DEFAULT_ORG", names::check_label(&default_org));
        let limits = limits(&rate_per_key, given(trusted_proxies).as_deref(), faults);
        let docs = faults.check("SEALPOD_DOCS", switch(&docs));
        let trash = faults.check("SEALPOD_TRASH_DAYS", trash_days.parse());
        let audit_retention = faults.check("SEALPOD_AUDIT_RETAIN_DAYS", audit_retain_days.parse());
        let backup = backup.check(faults);
        let (admin_keys, admin_key_file) = admin?;
        let (backups, backup_schedule) = backup?;
        Some(Self {
            listen: listen?,
            metrics_listen: metrics_listen?,
            store: store?,
            admin_keys,
            admin_key_file,
            superadmins: superadmins?,
            signup: signup?,
            mail: mail?,
            tls: tls?,
            default_organization: default_org,
            limits: limits?,
            docs: docs?,
            trash: trash?,
            audit_retention: audit_retention?,
            backups,
            backup_schedule,
        })
    }
}

impl StoreConfig {
    pub fn check(args: StoreArgs, environment: &Environment, faults: &mut Faults) -> Option<Self> {
        let StoreArgs {
            database_url,
            master_key_file,
        } = args;
        let options = faults.check("SEALPOD_DATABASE_URL", store::Options::from_url(&database_url));
        let setting = "SEALPOD_MASTER_KEY_FILE";
        let master_key_file = given(master_key_file);
        let keyring = match (&master_key_file, environment.get(MASTER_KEY)) {
            (Some(_), Some(_)) => {
                faults.add(
                    setting,
                    format!("the master key is given here and in {MASTER_KEY}; take one away"),
                );
                None
            }
            (None, Some(text)) => faults.check(MASTER_KEY, Keyring::parse(text)),
            (Some(path), None) => faults
                .check(setting, files::read(path.as_ref()))
                .and_then(|content| faults.check(setting, text(&content)))
                .and_then(|text| faults.check(setting, Keyring::parse(&text))),
            (None, None) => {
                faults.add(
                    setting,
                    format!("name the file of the master key here, or set {MASTER_KEY}; `sealpod-api-server key generate` makes one"),
                );
                None
            }
        };
        Some(Self {
            options: options?,
            keyring: keyring?,
            master_key_file: master_key_file.map(PathBuf::from),
        })
    }
}

/// A setting that was given: an empty one is none, as charts and shells write it.
fn given(setting: Option<String>) -> Option<String> {
    setting.filter(|text| !text.is_empty())
}

fn switch(setting: &str) -> Result<bool, &'static str> {
    match setting {
        "on" => Ok(true),
        "off" | "" => Ok(false),
        _ => Err("must be `on` or `off`"),
    }
}

fn text(content: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    std::str::from_utf8(content)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| "the file is not text")
}

fn address(setting: &str, text: &str, faults: &mut Faults) -> Option<SocketAddr> {
    let result = SocketAddr::from_str(text).map_err(|_| "must be an IP address and a port, for example 127.0.0.1:7100");
    faults.check(setting, result)
}

/// Most requests a second that can be asked for: beyond it, `0` says the same.
const MAX_RATE: u32 = 1_000_000;

fn limits(rate_per_key: &str, trusted_proxies: Option<&str>, faults: &mut Faults) -> Option<limits::Settings> {
    let rate = rate_per_key.parse().ok().filter(|rate| *rate <= MAX_RATE);
    let rate = rate.ok_or("must be a whole number from 0 to 1000000; 0 is without limit");
    let rate = faults.check("SEALPOD_RATE_PER_KEY", rate);
    let proxies = faults.check("SEALPOD_TRUSTED_PROXIES", trusted_proxies.unwrap_or_default().parse());
    Some(limits::Settings::new(proxies?, rate?))
}

fn admin_keys(
    file: Option<String>,
    environment: &Environment,
    faults: &mut Faults,
) -> Option<(AdminKeys, Option<FileSet>)> {
    let setting = "SEALPOD_ADMIN_API_KEY_FILE";
    match (file, environment.get(ADMIN_API_KEY)) {
        (Some(_), Some(_)) => {
            faults.add(
                setting,
                format!("the admin key is given here and in {ADMIN_API_KEY}; take one away"),
            );
            None
        }
        (None, Some(key)) => faults
            .check(ADMIN_API_KEY, AdminKeys::new(key.as_bytes()))
            .map(|keys| (keys, None)),
        (Some(path), None) => faults
            .check(setting, admin_key::load(PathBuf::from(path)))
            .map(|(keys, file)| (keys, Some(file))),
        (None, None) => {
            faults.add(
                setting,
                format!(
                    "name the file of the admin key here, or set {ADMIN_API_KEY}; `openssl rand -hex 32` makes one"
                ),
            );
            None
        }
    }
}

#[allow(
    clippy::option_option,
    reason = "the outer one says whether the setting could be read"
)]
fn tls_files(cert: Option<String>, key: Option<String>, faults: &mut Faults) -> Option<Option<tls::Reloading>> {
    match (cert, key) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => faults
            .check(
                "SEALPOD_TLS_CERT, SEALPOD_TLS_KEY",
                tls::Reloading::load(cert.into(), key.into()),
            )
            .map(Some),
        (Some(_), None) => {
            faults.add("SEALPOD_TLS_KEY", "is needed beside SEALPOD_TLS_CERT");
            None
        }
        (None, Some(_)) => {
            faults.add("SEALPOD_TLS_CERT", "is needed beside SEALPOD_TLS_KEY");
            None
        }
    }
}

#[cfg(test)]
mod tests;
