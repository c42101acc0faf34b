//! What the OpenAPI document says beside the routes: the credentials, and the errors that every call can answer.

use std::collections::BTreeMap;

use sealpod_core::wire::problem::{CONTENT_TYPE, Problem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealpod",
        description = "The REST planes of the api-server. Every error is a problem document (RFC 9457); programs decide by its `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    modifiers(&Credentials),
    tags(
        (name = "applications", description = "Management plane: applications and their keys"),
        (name = "environments", description = "Management plane: environments"),
        (name = "secrets", description = "Management plane: secrets, their values and versions"),
        (name = "configurations", description = "Management plane: configurations"),
        (name = "consumer", description = "Consumer plane: what an application reads with its own key"),
        (name = "sign-in", description = "Organization plane: sessions of people, and the codes that begin them"),
        (name = "organizations", description = "Organization plane: organizations"),
        (name = "members", description = "Organization plane: who belongs to an organization, with which role"),
        (name = "projects", description = "Organization plane: projects and environments"),
        (name = "environment secrets", description = "Organization plane: the secrets of one environment"),
        (name = "bundle", description = "Organization plane: what a sidecar reads and waits on"),
        (name = "service accounts", description = "Organization plane: service accounts and their keys"),
        (name = "acl", description = "Organization plane: rules"),
        (name = "audit", description = "Organization plane: the audit log of an organization, and of the instance"),
        (name = "service", description = "Probes, without a credential"),
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

/// The errors that any call of a plane can answer.
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        [
            ("400", "The request is not valid; `errors` names the fields"),
            ("401", "No valid credential of this plane"),
            ("403", "A role or rule refuses"),
            ("404", "Something that the path names does not exist"),
            ("409", "A live object has that name"),
            ("413", "The body is too large"),
            ("415", "The body is not JSON"),
            ("429", "Too many requests; see `Retry-After`"),
            ("500", "The server failed"),
            ("503", "Not now; see `Retry-After`"),
            ("507", "The server's disk is full"),
        ]
        .into_iter()
        .map(|(status, description)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            let response = ResponseBuilder::new()
                .description(description)
                .content(CONTENT_TYPE, content)
                .build();
            (status.to_owned(), RefOr::T(response))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_lists_every_route_and_reads_back() {
        let document = crate::routes::document();
        let json = document.to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let operations: Vec<String> = value["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| format!("{method} {path}"))
            })
            .collect();
        insta::assert_snapshot!(operations.join("\n"));
        for name in ["Problem", "Bundle", "SetValue", "AclRule"] {
            assert!(value["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
