//! All that is read for an Environment.

use kube::{Api, ResourceExt};
use sealpod_client::Client;
use sealpod_core::kubernetes::{OWNER_LABEL, RELEASED_BY_LABEL};
use sealpod_core::wire::management as wire;
use sealpod_crds::{Application, Environment};

use crate::controller::configurations;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::{lookup, namespace};
use crate::tolerant::Tolerant;

#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub namespace: namespace::Observed,
    /// The owner label's value for this object.
    pub owner: String,
    /// The owner label's value for its Application.
    pub application_owner: String,
    /// Whether there is an Application of the name that the object refers to.
    pub has_application: bool,
    /// The application on the server.
    pub application: Option<wire::Application>,
    /// What the application has under the slug.
    pub environment: Option<wire::Environment>,
    /// Those in it that an object has set, or that the spec names.
    pub configurations: Vec<wire::Configuration>,
    /// An older Environment that claims the same slug.
    pub older: Option<String>,
}

pub async fn observe(object: &Environment, context: &Context) -> Result<Observed, Error> {
    let namespace_name = object.namespace().unwrap_or_default();
    let namespace = namespace::observe(&context.kube, &namespace_name).await?;
    let wanted = &object.spec.application_ref.name;
    let api: Api<Tolerant<Application>> = Api::namespaced(context.kube.clone(), &namespace_name);
    let application_object = lookup::find(&api, wanted)
        .await
        .map_err(Error::kubernetes("reading the Application"))?;
    let application_owner = context.application_owner(&namespace, wanted);
    let client = context.server.admin_for(object);
    let application = match &application_object {
        Some(found) => by_slug(&client, found).await?,
        // The object is going, and its Application went first.
        None if object.metadata.deletion_timestamp.is_some() => by_owner(&client, &application_owner).await?,
        None => None,
    };
    let environment = match (&application, object.slug()) {
        (Some(application), Ok(slug)) => {
            let environments = client.management().environments(&application.slug, None).await;
            let environments = environments.map_err(Error::server("listing the environments"))?;
            environments
                .into_iter()
                .find(|environment| environment.slug == slug.as_str())
        }
        _ => None,
    };
    let configurations = match (&application, &environment) {
        (Some(application), Some(environment)) if object.metadata.deletion_timestamp.is_none() => {
            let wanted = &object.spec.configurations;
            let slug = environment.slug.as_str();
            let concerns = |environment: &str, key: &str| environment == slug && wanted.contains_key(key);
            configurations::observe(&client, &application.slug, concerns).await?
        }
        _ => vec![],
    };
    let older = context
        .environments
        .state()
        .iter()
        .filter(|other| claims_before(other, object))
        .map(|o| o.name_any())
        .min();
    Ok(Observed {
        owner: context.environment_owner(&namespace, &object.name_any()),
        namespace,
        application_owner,
        has_application: application_object.is_some(),
        application,
        environment,
        configurations,
        older,
    })
}

async fn by_slug(client: &Client, application: &Application) -> Result<Option<wire::Application>, Error> {
    let Ok(slug) = application.slug() else { return Ok(None) };
    match client.management().application(slug.as_str()).await {
        Ok(application) => Ok(Some(application)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::server("reading the application")(error)),
    }
}

/// The application that an Application object made, whose slug only that object knew.
async fn by_owner(client: &Client, owner: &str) -> Result<Option<wire::Application>, Error> {
    for label in [OWNER_LABEL, RELEASED_BY_LABEL] {
        let found = client.management().applications(Some((label, owner))).await;
        let found = found.map_err(Error::server("looking for the application"))?;
        // Checked again: the right to delete must not rest on a filter alone.
        if let Some(application) = found
            .into_iter()
            .find(|a| a.labels.get(label).is_some_and(|o| o == owner))
        {
            return Ok(Some(application));
        }
    }
    Ok(None)
}

/// Whether `other` claims what `object` claims, and was made before it (or at the same second, and its name is lower).
fn claims_before(other: &Environment, object: &Environment) -> bool {
    let age = |e: &Environment| (e.metadata.creation_timestamp.clone(), e.name_any());
    other.metadata.deletion_timestamp.is_none()
        && other.uid() != object.uid()
        && other.namespace() == object.namespace()
        && other.spec.application_ref == object.spec.application_ref
        && other.slug().is_ok()
        && other.slug() == object.slug()
        && age(other) < age(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn object(name: &str, made_at: i64, spec: &serde_json::Value) -> Environment {
        let mut object = Environment::new(name, serde_json::from_value(spec.clone()).unwrap());
        object.metadata.namespace = Some("shop".to_owned());
        object.metadata.uid = Some(name.to_owned());
        object.metadata.creation_timestamp = Some(Time(Timestamp::from_second(made_at).unwrap()));
        object
    }

    #[test]
    fn of_two_that_claim_one_slug_the_older_comes_first() {
        let prod = json!({"applicationRef": {"name": "shop"}, "slug": "prod"});
        let old = object("b", 1, &prod);
        let new = object("a", 2, &prod);
        assert!(claims_before(&old, &new) && !claims_before(&new, &old));
        let same_second = object("a", 1, &prod);
        assert!(claims_before(&same_second, &old) && !claims_before(&old, &same_second));
        assert!(!claims_before(&old, &old));
    }

    #[test]
    fn what_differs_in_application_slug_or_namespace_claims_nothing() {
        let new = object("a", 2, &json!({"applicationRef": {"name": "shop"}, "slug": "prod"}));
        let mut elsewhere = object("b", 1, &json!({"applicationRef": {"name": "shop"}, "slug": "prod"}));
        elsewhere.metadata.namespace = Some("other".to_owned());
        let mut going = object("b", 1, &json!({"applicationRef": {"name": "shop"}, "slug": "prod"}));
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        for other in [
            object("b", 1, &json!({"applicationRef": {"name": "mail"}, "slug": "prod"})),
            object("b", 1, &json!({"applicationRef": {"name": "shop"}, "slug": "qa"})),
            elsewhere,
            going,
        ] {
            assert!(!claims_before(&other, &new), "{:?}", other.spec);
        }
    }
}
