//! The api-server of the release, called through a port-forward as an administrator would.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sealpod_client::{AuditFilter, Client, Credential, Error};
use sealpod_core::SecretText;
use sealpod_core::wire::management::{CreateSecret, SetValue};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::install::{NAMESPACE, object};
use crate::tools::Tools;

/// The organization that the management plane works in.
pub const ORGANIZATION: &str = "default";

/// An open way to the api-server. Ends when the pod behind it does.
pub struct Connection {
    forward: Child,
    url: String,
    ca: String,
    pub client: Client,
}

impl Connection {
    pub async fn open(tools: &Tools, kubernetes: &kube::Client) -> Result<Self> {
        let service = format!("service/{}", object("api-server"));
        let mut command = tools.kubectl([
            "port-forward",
            "--namespace",
            NAMESPACE,
            "--address",
            "localhost",
            &service,
            ":7100",
        ]);
        // Nothing of ours that it could hold open, should it outlive a test run that is killed.
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut forward = command.spawn().context("cannot run kubectl")?;
        let stdout = forward.stdout.take().context("its stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let Some(line) = lines.next_line().await? else {
            let ended = forward.wait_with_output().await?;
            bail!(
                "kubectl port-forward ended at once: {}",
                String::from_utf8_lossy(&ended.stderr).trim()
            );
        };
        let port = forwarded_port(&line).with_context(|| format!("kubectl port-forward says {line:?}"))?;
        // Whoever stops reading would stop kubectl at its next line.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let url = format!("https://localhost:{port}");
        let ca = entry(kubernetes, "server-tls", "ca.crt").await?;
        let admin = Credential::Admin(SecretText::new(entry(kubernetes, "admin-key", "admin.key").await?));
        let client = client(&url, &ca, admin)?;
        Ok(Self {
            forward,
            url,
            ca,
            client,
        })
    }

    /// A client of the same server with an application's own key.
    pub fn as_application(&self, key: &str) -> Result<Client> {
        client(&self.url, &self.ca, Credential::Application(SecretText::new(key)))
    }

    /// Whether whoever trusts this CA alone speaks with the server.
    pub async fn is_trusted_by(&self, ca: &str) -> Result<bool> {
        let anybody = client(&self.url, ca, Credential::Application(SecretText::new("nobody's")))?;
        match anybody.management().application("none").await {
            Err(Error::Untrusted { .. }) => Ok(false),
            Err(Error::Unauthorized(_)) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => bail!("the server takes any key"),
        }
    }

    pub fn is_open(&mut self) -> bool {
        matches!(self.forward.try_wait(), Ok(None))
    }
}

fn client(url: &str, ca: &str, credential: Credential) -> Result<Client> {
    let builder = Client::builder(url).credential(credential).ca(ca);
    Ok(builder.user_agent("sealpod-e2e").build()?)
}

/// The port in `Forwarding from 127.0.0.1:43211 -> 7100`.
fn forwarded_port(line: &str) -> Option<u16> {
    let (from, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    from.rsplit_once(':')?.1.parse().ok()
}

/// An entry of a Secret that the bootstrap Job made.
async fn entry(kubernetes: &kube::Client, secret: &str, key: &str) -> Result<String> {
    let name = object(secret);
    let secret = Api::<Secret>::namespaced(kubernetes.clone(), NAMESPACE)
        .get(&name)
        .await?;
    let value = secret.data.unwrap_or_default().remove(key);
    let value = value.with_context(|| format!("the Secret {name} has no {key}"))?;
    String::from_utf8(value.0).with_context(|| format!("{key} of the Secret {name} is no text"))
}

/// Sets a value, in a slot that is made when it is the first.
pub async fn set(client: &Client, application: &str, environment: &str, name: &str, value: &str) -> Result<()> {
    let management = client.management();
    let slot = CreateSecret {
        name: name.to_owned(),
        description: None,
    };
    match management.create_secret(application, &slot).await {
        Ok(_) | Err(Error::Conflict(_)) => {}
        Err(error) => return Err(error).with_context(|| format!("the secret {name} cannot be created")),
    }
    let value = SetValue {
        environment_slug: environment.to_owned(),
        value: SecretText::new(value),
        encoding: sealpod_core::Encoding::Utf8,
        is_enabled: true,
        expires_at: None,
        not_before: None,
    };
    management
        .set_values(application, name, &[value])
        .await
        .with_context(|| format!("the value of {name} cannot be set"))
}

/// Who has read values of a project, by the audit log: the type of each actor.
pub async fn readers(server: &Client, project: &str) -> Result<BTreeSet<String>> {
    let mut filter = AuditFilter {
        action: Some("secret.read".to_owned()),
        limit: Some(100),
        ..AuditFilter::default()
    };
    let mut readers = BTreeSet::new();
    loop {
        let page = server.org(ORGANIZATION).audit_log(&filter).await?;
        let of_project = page
            .entries
            .into_iter()
            .filter(|e| e.project.as_deref() == Some(project));
        readers.extend(of_project.map(|entry| entry.actor_type));
        filter.after = page.next_cursor;
        if filter.after.is_none() {
            return Ok(readers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_for_either_address() {
        assert_eq!(forwarded_port("Forwarding from 127.0.0.1:43211 -> 7100"), Some(43211));
        assert_eq!(forwarded_port("Forwarding from [::1]:43211 -> 7100"), Some(43211));
        assert_eq!(forwarded_port("error: lost connection to pod"), None);
    }
}
