//! What is made, in Kubernetes and on the server.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use sealpod_client::{Client as Server, Credential, Error};
use sealpod_core::wire::management::CreateSecret;
use sealpod_core::wire::org::PutSecret;
use sealpod_core::{Encoding, SecretText};
use sealpod_crds::{Application, SecretBinding};
use serde_json::json;

/// The Secret that has a copy of the value that changes, and under which key.
pub const SECRET: &str = "changing-copy";
pub const COPY_KEY: &str = "changing";
const APPLICATION: &str = "bench-operator";
const ENVIRONMENT: &str = "prod";
/// Secrets of which each binding names two.
const SECRETS: usize = 20;
const PATIENCE: Duration = Duration::from_mins(10);

pub struct Stage {
    pub namespace: String,
    kube: Client,
    server: Server,
}

impl Stage {
    /// In a namespace of its own, which is made anew.
    pub async fn prepare(kube: Client, namespace: String, server: &str, admin_key: SecretText) -> Result<Self> {
        let server = Server::builder(server)
            .credential(Credential::Admin(admin_key))
            .build()?;
        let stage = Self {
            namespace,
            kube,
            server,
        };
        stage.make_namespace().await?;
        let application: Application = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": APPLICATION},
            "spec": {"environments": [{"name": ENVIRONMENT}], "deletionPolicy": "Delete"},
        }))?;
        let applications = Api::<Application>::namespaced(stage.kube.clone(), &stage.namespace);
        applications.create(&PostParams::default(), &application).await?;
        let environment = async {
            loop {
                let environments = stage.server.management().environments(APPLICATION, None).await;
                if environments.is_ok_and(|all| all.iter().any(|one| one.slug == ENVIRONMENT)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let made = tokio::time::timeout(PATIENCE, environment).await;
        made.context("the controller does not make the application: is it running?")?;
        for n in 0..SECRETS {
            stage.secret(&name(n), "value").await?;
        }
        Ok(stage)
    }

    /// Deletes the namespace, and returns when it is gone.
    pub async fn clear(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.kube.clone());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => other.map(drop)?,
        }
        let gone = async {
            while namespaces.get_metadata_opt(&self.namespace).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            anyhow::Ok(())
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.with_context(|| format!("the namespace {} does not go", self.namespace))?
    }

    async fn make_namespace(&self) -> Result<()> {
        // Of a run that was interrupted.
        self.clear().await?;
        let namespaces = Api::<Namespace>::all(self.kube.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": self.namespace}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    async fn secret(&self, name: &str, value: &str) -> Result<()> {
        let slot = CreateSecret {
            name: name.to_owned(),
            description: None,
        };
        match self.server.management().create_secret(APPLICATION, &slot).await {
            Ok(_) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.put(name, value).await
    }

    async fn put(&self, name: &str, value: &str) -> Result<()> {
        let body = PutSecret {
            value: SecretText::new(value),
            description: None,
            encoding: Encoding::Utf8,
            expires_at: None,
            not_before: None,
        };
        let org = self.server.org("default");
        org.put_secret(APPLICATION, ENVIRONMENT, name, &body).await?;
        Ok(())
    }

    /// Sets the value that changes.
    pub async fn set(&self, value: &str) -> Result<()> {
        self.put(COPY_KEY, value).await
    }

    /// A binding as most are: two named secrets.
    pub async fn bind(&self, name: &str) -> Result<()> {
        let number = name.bytes().fold(0, |sum, byte| sum + usize::from(byte));
        let secrets = [number, number + 1].map(|n| json!({"name": self::name(n % SECRETS)}));
        self.create(name, json!({"secrets": secrets})).await
    }

    /// A binding with a copy of the value that changes.
    pub async fn copy(&self, name: &str, secret: &str) -> Result<()> {
        let spec =
            json!({"secrets": [{"name": COPY_KEY}], "kubernetesSecret": {"name": secret, "deletionPolicy": "Delete"}});
        self.create(name, spec).await
    }

    async fn create(&self, name: &str, mut spec: serde_json::Value) -> Result<()> {
        spec["applicationRef"] = json!({"name": APPLICATION});
        spec["environment"] = json!(ENVIRONMENT);
        let object: SecretBinding = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": name}, "spec": spec,
        }))?;
        let bindings = Api::<SecretBinding>::namespaced(self.kube.clone(), &self.namespace);
        bindings.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// A Secret of somebody else.
    pub async fn foreign(&self, n: usize, bytes: usize) -> Result<()> {
        let object: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("foreign-{n}")}, "stringData": {"large": "x".repeat(bytes)},
        }))?;
        let secrets = Api::<Secret>::namespaced(self.kube.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &object).await?;
        Ok(())
    }
}

fn name(n: usize) -> String {
    format!("key-{n:02}")
}
