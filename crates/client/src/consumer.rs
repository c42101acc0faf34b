//! The consumer plane, `/api/consumer`: what an application reads with its own key.

use sealpod_core::wire::management::{ConsumerConfiguration, ConsumerConfigurations, ConsumerSecret};

use crate::path::{path, query};
use crate::{Client, Result};

/// Calls that need an application's key. What is not there, for whatever reason, is one and the same
/// [`Error::NotFound`](crate::Error).
#[derive(Debug, Clone, Copy)]
pub struct Consumer<'a>(pub(crate) &'a Client);

fn at(segments: &[&str], environment: &str) -> Result<String> {
    let path = path(["api", "consumer"].into_iter().chain(segments.iter().copied()))?;
    Ok(path + &query([("environment", Some(environment))]))
}

impl Consumer<'_> {
    /// The active version of a secret.
    pub async fn secret(&self, name: &str, environment: &str) -> Result<ConsumerSecret> {
        self.0.get(at(&["secrets", name], environment)?).await
    }

    /// Every configuration of an environment, by key.
    pub async fn configurations(&self, environment: &str) -> Result<Vec<ConsumerConfiguration>> {
        let all: ConsumerConfigurations = self.0.get(at(&["configurations"], environment)?).await?;
        Ok(all.items)
    }

    pub async fn configuration(&self, key: &str, environment: &str) -> Result<ConsumerConfiguration> {
        self.0.get(at(&["configurations", key], environment)?).await
    }
}
