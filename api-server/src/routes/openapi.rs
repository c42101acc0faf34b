//! What the OpenAPI document says beside the routes: the credentials, the errors that calls can answer, and what
//! [`complete`] adds to every operation.

mod complete;
mod examples;
mod parameters;
mod problems;

use sealpod_core::openapi::{
    ConfigurationKey, EnvironmentSlug, OrganizationName, ProjectName, SecretKey, SecretName, Slug,
};
use sealpod_core::wire::problem::Problem;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub use complete::complete;
pub use problems::{Problems, shared};

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealpod",
        description = "The REST planes of the api-server. Every error is a problem document (RFC 9457); programs decide by \
            its `code`.\n\nA credential of one plane is a 401 on another, but for the admin key, which is a superadmin on the \
            organization plane too. Send one credential only: two different valid ones are a 400. Unknown fields and query \
            parameters are a 400 that names them.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server that this document comes from")),
    components(schemas(Problem, Slug, EnvironmentSlug, OrganizationName, ProjectName, SecretName, SecretKey, ConfigurationKey)),
    modifiers(&Credentials),
    tags(
        (name = "applications", description = "Management plane: applications and their keys"),
        (name = "environments", description = "Management plane: environments"),
        (name = "secrets", description = "Management plane: secrets and their values"),
        (name = "versions", description = "Management plane: versions of a secret in one environment"),
        (name = "changes", description = "Management plane: what moved, to wait for"),
        (name = "configurations", description = "Management plane: configurations"),
        (name = "consumer", description = "Consumer plane: what an application reads with its own key"),
        (name = "sign-in", description = "Organization plane: sessions of people, and the codes that begin them"),
        (name = "organizations", description = "Organization plane: organizations"),
        (name = "quotas", description = "Organization plane: how much an organization may hold, and holds"),
        (name = "members", description = "Organization plane: who belongs to an organization, with which role"),
        (name = "projects", description = "Organization plane: projects"),
        (name = "project environments", description = "Organization plane: environments of a project"),
        (name = "environment secrets", description = "Organization plane: the secrets of one environment"),
        (name = "secret versions", description = "Organization plane: versions of a secret in one environment"),
        (name = "trash", description = "Organization plane: what was deleted, and its way back"),
        (name = "bundle", description = "Organization plane: what a sidecar reads and waits on"),
        (name = "consumers", description = "Organization plane: who runs which version, as pods say of themselves"),
        (name = "service accounts", description = "Organization plane: service accounts and their keys"),
        (name = "acl", description = "Organization plane: rules"),
        (name = "audit", description = "Organization plane: the audit log of an organization, and of the instance"),
        (name = "backups", description = "Organization plane: backups of everything, and their way back"),
        (name = "keys", description = "Organization plane: the master keys that the data needs, by their ids"),
        (name = "service", description = "Probes and this description, without a credential"),
    )
)]
pub struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = |description| {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description))
                .build();
            SecurityScheme::Http(scheme)
        };
        components.add_security_scheme("admin_key", bearer("The admin key"));
        components.add_security_scheme("session", bearer("The token of somebody who signed in, `cr_session_…`"));
        let key = |description| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("X-API-Key", description)))
        };
        components.add_security_scheme("application_key", key("An application's key, `grm_…`"));
        components.add_security_scheme("service_account_key", key("A service account's key, `cr_sa_…`"));
    }
}

#[cfg(test)]
mod tests;
