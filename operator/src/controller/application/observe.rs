//! All that is read for an Application.

use kube::ResourceExt;
use sealpod_core::wire::management as wire;
use sealpod_crds::Application;

use super::{deliver, key};
use crate::controller::configurations;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::namespace;
use crate::controller::owner::{Ownership, ownership};

#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub namespace: namespace::Observed,
    /// The owner label's value for this object.
    pub owner: String,
    /// What the server has under the slug.
    pub application: Option<wire::Application>,
    pub environments: Vec<wire::Environment>,
    /// Those of its environments that an object has set, or that the spec names.
    pub configurations: Vec<wire::Configuration>,
    pub key: key::Observed,
}

pub async fn observe(object: &Application, context: &Context) -> Result<Observed, Error> {
    let namespace = namespace::observe(&context.kube, &object.namespace().unwrap_or_default()).await?;
    let owner = context.application_owner(&namespace, &object.name_any());
    let mut observed = Observed {
        namespace,
        owner,
        application: None,
        environments: vec![],
        configurations: vec![],
        key: key::Observed::default(),
    };
    // Without a slug the object has nothing on the server; the evaluation says so.
    let Ok(slug) = object.slug() else { return Ok(observed) };
    let client = context.server.admin_for(object);
    observed.application = match client.management().application(slug.as_str()).await {
        Ok(application) => Some(application),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(Error::server("reading the application")(error)),
    };
    if let Some(application) = &observed.application {
        let environments = client.management().environments(slug.as_str(), None).await;
        observed.environments = environments.map_err(Error::server("listing the environments"))?;
        // Of what is another's, no more is read than is shown.
        let ours = ownership(&application.labels, &observed.owner);
        let ours = matches!(ours, Ownership::Ours | Ownership::Adoptable);
        if ours && object.metadata.deletion_timestamp.is_none() {
            let concerns = |environment: &str, key: &str| names(object, environment, key);
            observed.configurations = configurations::observe(&client, slug.as_str(), concerns).await?;
            observed.key = deliver::observe(object, Some(application), context).await?;
        }
    } else {
        observed.key = deliver::observe(object, None, context).await?;
    }
    Ok(observed)
}

/// Whether the short form says anything about this configuration.
fn names(object: &Application, environment: &str, key: &str) -> bool {
    let mut environments = object.spec.environments.iter();
    environments.any(|e| e.slug().is_ok_and(|slug| slug.as_str() == environment) && e.configurations.contains_key(key))
}
