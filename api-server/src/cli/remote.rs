//! The commands that ask a running server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Certificate, Client, Method};
use sealpod_core::SecretText;
use sealpod_core::wire::keys::{Keys, MasterKey, RotationState};
use sealpod_core::wire::problem::Problem;
use sealpod_runtime::files;

use super::Outcome;
use super::maintain::print;
use super::serve::block_on;
use crate::config::{ADMIN_API_KEY, Environment};

/// How often progress is asked for, and how long one answer may take.
const POLL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Where the server listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7100")]
    url: String,

    /// File of the certificates that the server's own is trusted by (PEM), instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// File of the admin key, whose first line is used [or the key in `SEALPOD_ADMIN_API_KEY`]
    #[arg(long, env = "SEALPOD_ADMIN_API_KEY_FILE", value_name = "FILE")]
    admin_api_key_file: Option<PathBuf>,
}

pub fn rotate_keys(args: RemoteArgs) -> Outcome {
    block_on(async {
        let server = Remote::new(args)?;
        let mut keys: Keys = server.call(Method::POST, "/api/keys/rotate").await?;
        print(format_args!("current master key: {}", keys.current))?;
        let mut shown = None;
        loop {
            let rotation = &keys.rotation;
            let waiting = keys
                .keys
                .iter()
                .any(|key| key.id != keys.current && needs(key) + u64::from(is_verifying(key)) > 0);
            match rotation.state {
                RotationState::Failed => bail_with(rotation.problem.as_deref())?,
                RotationState::Idle if !waiting => break,
                state => {
                    let now = (state, rotation.done * 10 / rotation.total.max(1));
                    if shown.replace(now) != Some(now) {
                        print(format_args!(
                            "{}: {} of {}",
                            state.as_str(),
                            rotation.done,
                            rotation.total
                        ))?;
                    }
                }
            }
            tokio::time::sleep(POLL).await;
            keys = server.call(Method::GET, "/api/keys").await?;
        }
        print(format_args!("everything is under the current key, and opens"))?;
        show(&keys)
    })
}

pub fn list_keys(args: RemoteArgs) -> Outcome {
    block_on(async {
        let server = Remote::new(args)?;
        show(&server.call(Method::GET, "/api/keys").await?)
    })
}

fn bail_with(problem: Option<&str>) -> anyhow::Result<()> {
    bail!(
        "the rotation does not go on: {}",
        problem.unwrap_or("see the server's log")
    )
}

fn is_verifying(key: &MasterKey) -> bool {
    key.state == sealpod_core::wire::keys::MasterKeyState::Verifying
}

fn needs(key: &MasterKey) -> u64 {
    key.versions + key.configurations + key.answers + key.server_keys
}

fn show(keys: &Keys) -> Outcome {
    for key in &keys.keys {
        let backups = key.backups.map_or("unknown".to_owned(), |count| count.to_string());
        let advice = match (key.in_keyring, key.may_be_removed, key.id == keys.current) {
            (true, true, _) => "; its line may be taken out of the key file, and the key thrown away",
            (true, false, false) => "; keep it",
            (false, false, _) => "; it is not in the key file: put it back, or lose what needs it",
            _ => "",
        };
        print(format_args!(
            "{} {}: {} values, {backups} backups need it{advice}",
            key.id,
            key.state.as_str(),
            needs(key),
        ))?;
    }
    keys.backups_unknown
        .iter()
        .try_for_each(|why| print(format_args!("{why}")))
}

/// A running server, called with the admin key.
struct Remote {
    client: Client,
    url: String,
    key: SecretText,
}

impl Remote {
    fn new(args: RemoteArgs) -> anyhow::Result<Self> {
        let RemoteArgs {
            url,
            ca_file,
            admin_api_key_file,
        } = args;
        let mut client = Client::builder().timeout(PATIENCE).no_proxy();
        if let Some(file) = ca_file {
            let pem = files::read(&file)?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("{} holds no certificates in PEM form", file.display()))?;
            client = client.tls_certs_only(certificates);
        }
        Ok(Self {
            client: client.build()?,
            url: url.trim_end_matches('/').to_owned(),
            key: admin_key(admin_api_key_file)?,
        })
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.url);
        let call = self.client.request(method, &url).bearer_auth(self.key.expose());
        let answer = call
            .send()
            .await
            .with_context(|| format!("the server at {} does not answer; name another with --url", self.url))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.json().await?);
        }
        match answer.json::<Problem>().await {
            Ok(problem) => bail!("the server refused: {} ({status}, {})", problem.detail, problem.code),
            Err(_) => bail!("{url} answered {status}, and not as a Sealpod server does"),
        }
    }
}

fn admin_key(file: Option<PathBuf>) -> anyhow::Result<SecretText> {
    let text = match file.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            let content = files::read(&path)?;
            let text = std::str::from_utf8(&content).context("the file of the admin key is not text")?;
            SecretText::new(
                text.lines()
                    .map(str::trim)
                    .find(|line| !line.is_empty())
                    .unwrap_or_default(),
            )
        }
        None => SecretText::new(Environment::of_process().get(ADMIN_API_KEY).unwrap_or_default()),
    };
    if text.expose().is_empty() {
        bail!("give the admin key: its file with --admin-api-key-file, or the key in {ADMIN_API_KEY}");
    }
    Ok(text)
}
