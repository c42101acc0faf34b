//! Does what was decided for an Application.

use sealpod_client::{Client, Error as ServerError};
use sealpod_core::wire::management as wire;
use sealpod_crds::Application;

use super::deliver;
use super::evaluate::{Action, EnvironmentAction, Plan};
use super::observe::Observed;
use crate::controller::configurations;
use crate::controller::context::Context;
use crate::controller::error::Error;

/// Returns the application and all of its environments as the server has them now.
pub async fn apply(
    object: &Application,
    plan: Plan,
    observed: Observed,
    context: &Context,
) -> Result<(wire::Application, Vec<wire::Environment>), Error> {
    let client = context.server.admin_for(object);
    let management = client.management();
    let slug = object.slug().map_err(|_| Error::NotNow("the object has no slug"))?;
    let changes = !plan.environments.is_empty() || plan.application != Action::Keep;
    let mut key = None;
    let application = match plan.application {
        Action::Create(body) => {
            let created = management.create_application(&body).await;
            let created = created.map_err(Error::server("making the application"))?;
            key = Some(created.plain_api_key).filter(|_| object.spec.api_key_secret_name.is_some());
            let made = management.application(slug.as_str()).await;
            made.map_err(Error::server("reading the application"))?
        }
        Action::Update(body) => {
            let updated = management.update_application(slug.as_str(), &body).await;
            updated.map_err(Error::server("updating the application"))?
        }
        Action::Keep | Action::Delete => observed.application.ok_or(Error::NotNow("the application is gone"))?,
    };
    for action in plan.environments {
        environment(&client, slug.as_str(), action).await?;
    }
    configurations::apply(&client, slug.as_str(), &plan.configurations).await?;
    deliver::apply(object, &application, &plan.key, &observed.key, key, context).await?;
    let environments = if changes {
        let listed = management.environments(slug.as_str(), None).await;
        listed.map_err(Error::server("listing the environments"))?
    } else {
        observed.environments
    };
    Ok((application, environments))
}

/// Carries out a deletion: environments first, so that a failure between the two is found again by the application.
pub async fn clean_up(object: &Application, plan: Plan, context: &Context) -> Result<(), Error> {
    let client = context.server.admin_for(object);
    let Ok(slug) = object.slug() else { return Ok(()) };
    for action in plan.environments {
        environment(&client, slug.as_str(), action).await?;
    }
    if plan.key.ends_earlier {
        deliver::end(object, &client, slug.as_str(), 0, context).await?;
    }
    match plan.application {
        Action::Delete => gone(client.management().delete_application(slug.as_str()).await)
            .map_err(Error::server("deleting the application")),
        Action::Update(body) => gone(
            client
                .management()
                .update_application(slug.as_str(), &body)
                .await
                .map(drop),
        )
        .map_err(Error::server("releasing the application")),
        Action::Keep | Action::Create(_) => Ok(()),
    }
}

async fn environment(client: &Client, application: &str, action: EnvironmentAction) -> Result<(), Error> {
    let management = client.management();
    match action {
        EnvironmentAction::Create(body) => management
            .create_environment(application, &body)
            .await
            .map(drop)
            .map_err(Error::server("making an environment")),
        EnvironmentAction::Update { slug, body } => management
            .update_environment(application, &slug, &body)
            .await
            .map(drop)
            .map_err(Error::server("updating an environment")),
        EnvironmentAction::Delete { slug } => gone(management.delete_environment(application, &slug).await)
            .map_err(Error::server("deleting an environment")),
    }
}

/// What is already gone need not be deleted.
fn gone(result: Result<(), ServerError>) -> Result<(), ServerError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
