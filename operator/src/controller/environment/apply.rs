//! Does what was decided for an Environment.

use sealpod_core::wire::management as wire;
use sealpod_crds::Environment;

use super::evaluate::{Action, Plan};
use super::observe::Observed;
use crate::controller::configurations;
use crate::controller::context::Context;
use crate::controller::error::Error;

/// Returns the environment as the server has it now.
pub async fn apply(
    object: &Environment,
    plan: Plan,
    observed: Observed,
    context: &Context,
) -> Result<wire::Environment, Error> {
    let client = context.server.admin_for(object);
    let management = client.management();
    let application = observed.application.ok_or(Error::NotNow("the application is gone"))?;
    let slug = object.slug().map_err(|_| Error::NotNow("the object has no slug"))?;
    let environment = match plan.environment {
        Action::Create(body) => {
            let made = management.create_environment(&application.slug, &body).await;
            made.map_err(Error::server("making the environment"))?
        }
        Action::Update(body) => {
            let updated = management
                .update_environment(&application.slug, slug.as_str(), &body)
                .await;
            updated.map_err(Error::server("updating the environment"))?
        }
        Action::Keep | Action::Delete => observed.environment.ok_or(Error::NotNow("the environment is gone"))?,
    };
    configurations::apply(&client, &application.slug, &plan.configurations).await?;
    Ok(environment)
}

/// Carries out a deletion. What is already gone need not be deleted.
pub async fn clean_up(
    object: &Environment,
    action: Action,
    observed: &Observed,
    context: &Context,
) -> Result<(), Error> {
    let client = context.server.admin_for(object);
    let management = client.management();
    let (Some(application), Ok(slug)) = (&observed.application, object.slug()) else {
        return Ok(());
    };
    let (doing, result) = match action {
        Action::Delete => {
            let result = management.delete_environment(&application.slug, slug.as_str()).await;
            ("deleting the environment", result)
        }
        Action::Update(body) => {
            let result = management
                .update_environment(&application.slug, slug.as_str(), &body)
                .await;
            ("releasing the environment", result.map(drop))
        }
        Action::Keep | Action::Create(_) => return Ok(()),
    };
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map_err(Error::server(doing)),
    }
}
