//! All that is read for a SecretBinding before its key is used.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use sealpod_client::Client;
use sealpod_core::kubernetes::{key_secret_name, service_account_name};
use sealpod_core::wire::management as wire;
use sealpod_core::wire::org::{AclRule, ServiceAccount, SubjectType};
use sealpod_crds::{Application, SecretBinding};

use super::secret;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::namespace;
use crate::tolerant::Tolerant;

#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub namespace: namespace::Observed,
    /// The owner label's value for the Application that the binding refers to.
    pub application_owner: String,
    /// The service account's full name, by which alone it is found, and the value of its owner label.
    pub account_name: String,
    pub account_owner: String,
    /// Whether there is an Application of the name that the binding refers to.
    pub has_application: bool,
    /// The application on the server, as it is now: its owner label is what rights are granted by.
    pub application: Option<wire::Application>,
    /// Slugs of the application's environments.
    pub environments: Vec<String>,
    pub account: Option<ServiceAccount>,
    /// The rules of the account.
    pub rules: Vec<AclRule>,
    pub secret: secret::Observed,
}

pub async fn observe(object: &SecretBinding, context: &Context) -> Result<Observed, Error> {
    let (namespace_name, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let namespace = namespace::observe(&context.kube, &namespace_name).await?;
    let referred = &object.spec.application_ref.name;
    let applications: Api<Tolerant<Application>> = Api::namespaced(context.kube.clone(), &namespace_name);
    let application_object = applications.get_opt(referred).await;
    let application_object = application_object.map_err(Error::kubernetes("reading the Application"))?;
    let client = context.server.admin_for(object);
    let (application, environments) = match &application_object {
        Some(found) => on_the_server(&client, found).await?,
        None => (None, vec![]),
    };
    let account_name = service_account_name(&context.cluster_id, &namespace_name, &name);
    let account = account(&client, context, &account_name).await?;
    let rules = match &account {
        Some(account) => rules(&client, context, account).await?,
        None => vec![],
    };
    let secrets: Api<Tolerant<Secret>> = Api::namespaced(context.kube.clone(), &namespace_name);
    let secret = secrets.get_opt(&key_secret_name(&name)).await;
    let secret = secret.map_err(Error::kubernetes("reading the key Secret"))?;
    Ok(Observed {
        application_owner: context.application_owner(&namespace, referred),
        account_owner: context.binding_owner(&namespace, &name),
        namespace,
        account_name,
        has_application: application_object.is_some(),
        application,
        environments,
        account,
        rules,
        secret: secret::observe(secret.map(|s| s.0), object),
    })
}

/// The account of exactly this name.
pub async fn account(client: &Client, context: &Context, name: &str) -> Result<Option<ServiceAccount>, Error> {
    let found = client
        .org(context.server.organization())
        .service_accounts(Some(name))
        .await;
    let found = found.map_err(Error::server("looking for the service account"))?;
    Ok(found.into_iter().find(|account| account.name == name))
}

async fn on_the_server(
    client: &Client,
    application: &Application,
) -> Result<(Option<wire::Application>, Vec<String>), Error> {
    let Ok(slug) = application.slug() else {
        return Ok((None, vec![]));
    };
    let application = match client.management().application(slug.as_str()).await {
        Ok(application) => application,
        Err(error) if error.is_not_found() => return Ok((None, vec![])),
        Err(error) => return Err(Error::server("reading the application")(error)),
    };
    let environments = client.management().environments(slug.as_str(), None).await;
    let environments = environments.map_err(Error::server("listing the environments"))?;
    Ok((Some(application), environments.into_iter().map(|e| e.slug).collect()))
}

async fn rules(client: &Client, context: &Context, account: &ServiceAccount) -> Result<Vec<AclRule>, Error> {
    let organization = client.org(context.server.organization());
    let rules = organization.acl_rules_of(SubjectType::ServiceAccount, account.id).await;
    let mut rules = rules.map_err(Error::server("listing the access rules"))?;
    // What is not wanted is revoked, so not one of another account may ever be among them.
    rules.retain(|rule| rule.subject_type == SubjectType::ServiceAccount && rule.subject_id == account.id);
    Ok(rules)
}
