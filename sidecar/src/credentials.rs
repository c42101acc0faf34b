//! The files of the key Secret: key, CA and what to write. They are read again when they change, so that a rotated key
//! or an edited binding needs no restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sealpod_client::{BuildError, Client, Credential};
use sealpod_core::SecretText;
use sealpod_core::injection::{API_KEY_FILE, BINDING_FILE, BindingFile, CA_FILE, MountedBinding};
use sealpod_core::wire::bundle::BundleRequest;
use sealpod_runtime::files::{Content, FileSet, Unreadable};

use crate::selection;

/// An answer may be this much larger than the volume: names, versions, JSON.
const ANSWER_MARGIN: usize = 1024 * 1024;

/// Why the files cannot be used. None of these texts quotes the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    #[error("{API_KEY_FILE} is not text")]
    Key,
    #[error("{BINDING_FILE} is not what this version reads: {0}")]
    Binding(String),
    #[error("{BINDING_FILE} selects nothing: `secrets` is an empty list")]
    SelectsNothing,
    #[error("{0}")]
    Client(#[from] BuildError),
}

/// Everything that a fetch needs, made of one state of the files.
#[derive(Debug, Clone)]
pub struct Session {
    pub client: Client,
    pub binding: BindingFile,
    pub request: BundleRequest,
}

/// The directory of one binding's key Secret.
#[derive(Debug)]
pub struct Credentials {
    files: FileSet,
    server_url: String,
    max_answer_bytes: usize,
}

impl Credentials {
    pub fn new(server_url: &str, mounted: &MountedBinding) -> Self {
        let directory = Path::new(&mounted.credentials);
        Self {
            files: FileSet::new([API_KEY_FILE, CA_FILE, BINDING_FILE].map(|name| directory.join(name))),
            server_url: server_url.to_owned(),
            max_answer_bytes: usize::try_from(mounted.size_limit).unwrap_or(usize::MAX / 2) + ANSWER_MARGIN,
        }
    }

    pub fn read(&mut self) -> Result<Arc<Session>, CredentialError> {
        let contents = self.files.read();
        self.session(contents)
    }

    /// Waits until the files differ from what was last read. Cancel-safe.
    pub async fn changed(&mut self, interval: Duration) -> Result<Arc<Session>, CredentialError> {
        let contents = self.files.changed(interval).await;
        self.session(contents)
    }

    fn session(&self, contents: Vec<Content>) -> Result<Arc<Session>, CredentialError> {
        let [key, ca, binding] = <[Content; 3]>::try_from(contents).expect("three files were asked for");
        let key = key?;
        let key = std::str::from_utf8(&key).map_err(|_| CredentialError::Key)?;
        let binding: BindingFile =
            serde_json::from_slice(&binding?).map_err(|error| CredentialError::Binding(error.to_string()))?;
        if binding.secrets.as_ref().is_some_and(Vec::is_empty) {
            // The server takes a query without a selector for "everything".
            return Err(CredentialError::SelectsNothing);
        }
        let mut client = Client::builder(&self.server_url)
            .credential(Credential::ServiceAccount(SecretText::new(key)))
            .user_agent(concat!("sealpod-sidecar/", env!("CARGO_PKG_VERSION")))
            .max_answer_bytes(self.max_answer_bytes);
        match ca {
            Ok(pem) => client = client.ca(pem.as_slice()),
            Err(Unreadable::Absent(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Arc::new(Session {
            client: client.build()?,
            request: selection::request(&binding),
            binding,
        }))
    }
}
