//! All that is read for a SecretBinding before its key is used.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt};
use sealpod_client::Client;
use sealpod_core::kubernetes::{key_secret_name, service_account_name};
use sealpod_core::names::check_label;
use sealpod_core::wire::management as wire;
use sealpod_core::wire::org::{AclRule, ServiceAccount, SubjectType};
use sealpod_crds::{Application, SecretBinding};

use super::secret;
use crate::controller::allowed::admits;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::{lookup, namespace};
use crate::tolerant::Tolerant;

#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    pub namespace: namespace::Observed,
    /// The owner label's value for the Application that the binding refers to.
    pub application_owner: String,
    /// The service account's full name, by which alone it is found, and the value of its owner label.
    pub account_name: String,
    pub account_owner: String,
    /// The namespace of the Application that the binding refers to.
    pub application_namespace: String,
    /// Whether that namespace is one that this controller works in.
    pub is_in_scope: bool,
    /// Whether there is an Application of the name that the binding refers to.
    pub has_application: bool,
    /// Whether that Application lets bindings of this namespace read.
    pub is_admitted: bool,
    /// The application on the server, as it is now: its owner label is what rights are granted by.
    pub application: Option<wire::Application>,
    /// Slugs of the application's environments.
    pub environments: Vec<String>,
    pub account: Option<ServiceAccount>,
    /// The rules of the account.
    pub rules: Vec<AclRule>,
    pub secret: secret::Observed,
}

/// In two rounds of concurrent reads. All of them are of now: rights rest on them, and a cache may still know the
/// namespace or the Application that was there before.
pub async fn observe(object: &SecretBinding, context: &Context) -> Result<Observed, Error> {
    let (namespace_name, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let referred = &object.spec.application_ref;
    let application_namespace = referred.namespace.as_deref().unwrap_or(&namespace_name);
    let is_abroad = application_namespace != namespace_name;
    // Asking for what is no namespace, or for one that may not be read, fails for ever: the binding's owner would keep
    // by it what others have ended.
    let is_in_scope = context.scope.covers(application_namespace);
    let may_ask = !is_abroad || (is_in_scope && check_label(application_namespace).is_ok());
    let client = context.server.admin_for(object);
    let account_name = service_account_name(&context.cluster_id, &namespace_name, &name);
    let (asking, home, application_object, secret, account) = tokio::try_join!(
        namespace_of(&namespace_name, context),
        async {
            if is_abroad && may_ask {
                return namespace_of(application_namespace, context).await;
            }
            Ok(None)
        },
        async {
            if may_ask {
                return application_object(application_namespace, &referred.name, context).await;
            }
            Ok(None)
        },
        key_secret(&namespace_name, &name, context),
        account(&client, context, &account_name),
    )?;
    let Some((namespace, labels)) = asking else {
        return Err(Error::NotNow("the namespace is gone"));
    };
    let owner_namespace = if is_abroad {
        home.as_ref().map(|(home, _)| home)
    } else {
        Some(&namespace)
    };
    let is_admitted = application_object.as_ref().is_some_and(|application| {
        let allowed = &application.spec.allowed_namespaces;
        owner_namespace.is_some() && admits(allowed, application_namespace, &namespace_name, &labels)
    });
    // What may not be known is not read.
    let readable = application_object.as_ref().filter(|_| is_admitted);
    let ((application, environments), rules) = tokio::try_join!(
        async {
            match readable {
                Some(found) => on_the_server(&client, found).await,
                None => Ok((None, vec![])),
            }
        },
        async {
            match &account {
                Some(account) => rules(&client, context, account).await,
                None => Ok(vec![]),
            }
        },
    )?;
    Ok(Observed {
        application_owner: owner_namespace
            .map(|home| context.application_owner(home, &referred.name))
            .unwrap_or_default(),
        application_namespace: application_namespace.to_owned(),
        is_in_scope,
        account_owner: context.binding_owner(&namespace, &name),
        namespace,
        account_name,
        has_application: application_object.is_some(),
        is_admitted,
        application,
        environments,
        account,
        rules,
        secret: secret::observe(secret, object),
    })
}

/// A namespace and its labels; nothing where there is none.
async fn namespace_of(
    name: &str,
    context: &Context,
) -> Result<Option<(namespace::Observed, BTreeMap<String, String>)>, Error> {
    let found = namespace::read(&context.kube, name).await;
    let Some(found) = found.map_err(Error::kubernetes("reading the namespace"))? else {
        return Ok(None);
    };
    let observed = namespace::Observed {
        name: name.to_owned(),
        uid: found.uid().ok_or(Error::NotNow("the namespace has no UID yet"))?,
        terminating: found.meta().deletion_timestamp.is_some(),
    };
    Ok(Some((observed, found.0.metadata.labels.unwrap_or_default())))
}

async fn application_object(namespace: &str, name: &str, context: &Context) -> Result<Option<Application>, Error> {
    let api: Api<Tolerant<Application>> = Api::namespaced(context.kube.clone(), namespace);
    let found = lookup::find(&api, name)
        .await
        .map_err(Error::kubernetes("reading the Application"))?;
    Ok(found.map(|application| application.0))
}

async fn key_secret(namespace: &str, binding: &str, context: &Context) -> Result<Option<Secret>, Error> {
    let api: Api<Tolerant<Secret>> = Api::namespaced(context.kube.clone(), namespace);
    let found = api.get_opt(&key_secret_name(binding)).await;
    Ok(found
        .map_err(Error::kubernetes("reading the key Secret"))?
        .map(|secret| secret.0))
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
    let management = client.management();
    let (application, environments) = tokio::join!(
        management.application(slug.as_str()),
        management.environments(slug.as_str(), None)
    );
    let application = match application {
        Ok(application) => application,
        Err(error) if error.is_not_found() => return Ok((None, vec![])),
        Err(error) => return Err(Error::server("reading the application")(error)),
    };
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
