//! All that is read for an Application.

use kube::ResourceExt;
use sealpod_core::wire::management as wire;
use sealpod_crds::Application;

use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::namespace;

#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub namespace: namespace::Observed,
    /// The owner label's value for this object.
    pub owner: String,
    /// What the server has under the slug.
    pub application: Option<wire::Application>,
    pub environments: Vec<wire::Environment>,
}

pub async fn observe(object: &Application, context: &Context) -> Result<Observed, Error> {
    let namespace = namespace::observe(&context.kube, &object.namespace().unwrap_or_default()).await?;
    let owner = context.application_owner(&namespace, &object.name_any());
    let mut observed = Observed {
        namespace,
        owner,
        application: None,
        environments: vec![],
    };
    // Without a slug the object has nothing on the server; the evaluation says so.
    let Ok(slug) = object.slug() else { return Ok(observed) };
    let client = context.server.admin_for(object);
    observed.application = match client.management().application(slug.as_str()).await {
        Ok(application) => Some(application),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(Error::server("reading the application")(error)),
    };
    if observed.application.is_some() {
        let environments = client.management().environments(slug.as_str(), None).await;
        observed.environments = environments.map_err(Error::server("listing the environments"))?;
    }
    Ok(observed)
}
