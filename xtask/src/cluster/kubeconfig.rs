//! Files for `KUBECONFIG`: with the certificates inside, so that one can be copied anywhere.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::BASE64;
use serde_json::json;

use super::certs::ClientCertificate;

/// The text of a kubeconfig whose only context is `sealpod`.
pub fn render(server: &str, authority: &str, client: &ClientCertificate) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sealpod", "cluster": {
            "server": server,
            "certificate-authority-data": BASE64.encode(authority.as_bytes()),
        }}],
        "users": [{"name": "sealpod", "user": {
            "client-certificate-data": BASE64.encode(client.certificate.as_bytes()),
            "client-key-data": BASE64.encode(client.key.as_bytes()),
        }}],
        "contexts": [{"name": "sealpod", "context": {"cluster": "sealpod", "user": "sealpod"}}],
        "current-context": "sealpod",
    });
    serde_yaml::to_string(&config).context("a kubeconfig is plain data")
}

/// Writes it for its owner only: it holds a private key.
pub fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    // A file that exists keeps its mode, so it goes first.
    let _ = fs::remove_file(path);
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_carries_its_certificates() {
        let client = ClientCertificate {
            certificate: "CERT".into(),
            key: "KEY".into(),
        };
        let text = render("https://10.99.0.2:6443", "CA", &client).unwrap();
        let config: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.99.0.2:6443");
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(config["users"][0]["user"]["client-key-data"], "S0VZ");
        assert_eq!(config["current-context"], "sealpod");
    }
}
