//! Puts refused calls of the organization plane on record, in one place for all of them: whatever answers 403 there,
//! because of a role or otherwise. Refusals of values know more of what was refused, and record themselves (see
//! `values::deny`).

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use sealpod_core::names;
use uuid::Uuid;

use super::Caller;
use crate::app::App;
use crate::audit::{By, Chain, Entry, Kind, Outcome, Verb};
use crate::error::{ApiError, Unrecorded};
use crate::store::StoreError;

/// A call that may be refused.
pub struct Call {
    method: Method,
    /// The path as it was sent, and the template that it fits.
    uri: Uri,
    template: MatchedPath,
    by: By,
    identity: [u8; 16],
}

impl Call {
    /// None for calls that no organization and no superadmin decides about.
    pub fn of(request: &Request) -> Option<Self> {
        let caller: &Caller = request.extensions().get()?;
        let template: &MatchedPath = request.extensions().get()?;
        (!template.as_str().starts_with("/api/auth/")).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            template: template.clone(),
            by: caller.by(),
            identity: caller.identity(),
        })
    }

    /// The answer to the call, whose refusal is on record where it is one; one caller's refusals only at a bounded
    /// rate, so that they cannot fill the disk.
    pub async fn answered(self, app: &App, mut response: Response) -> Response {
        let refused = response.extensions_mut().remove::<Unrecorded>().is_some();
        if !refused || !app.refusals().admit(self.identity) {
            return response;
        }
        match self.record(app).await {
            Ok(()) => response,
            Err(error) => ApiError::unrecorded(&error).into_response(),
        }
    }

    async fn record(self, app: &App) -> Result<(), StoreError> {
        let names = Names::of(self.template.as_str(), self.uri.path());
        let chain = match &names.organization {
            None => Chain::Instance,
            Some(name) => match app.store().organization(name).await {
                Ok(organization) => Chain::Organization(organization.id),
                // Deleted since it refused.
                Err(StoreError::NotFound(_)) => Chain::Instance,
                Err(error) => return Err(error),
            },
        };
        let (kind, verb) = action(&self.method, self.template.as_str());
        let entry = Entry {
            resource_id: names.id,
            project: names.project,
            environment: names.environment,
            ..Entry::new(kind, verb).outcome(Outcome::Denied)
        };
        app.store().record(chain, entry, self.by).await
    }
}

/// What the path names, as far as it is a name that such a thing can have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    organization: Option<String>,
    project: Option<String>,
    environment: Option<String>,
    /// That of the last object.
    id: Option<Uuid>,
}

impl Names {
    fn of(template: &str, path: &str) -> Self {
        let mut names = Self::default();
        for (parameter, value) in template.split('/').zip(path.split('/')) {
            // As the router reads it: no other spelling keeps a refusal out of its organization's chain.
            let value = percent_decode_str(value).decode_utf8().unwrap_or_default();
            let name = || names::check_label(&value).is_ok().then(|| value.to_string());
            match parameter {
                "{org}" => names.organization = name(),
                "{project}" => names.project = name(),
                "{env}" => names.environment = name(),
                parameter if parameter.starts_with('{') => names.id = value.parse().ok(),
                _ => {}
            }
        }
        names
    }
}

/// What such a call does, as the audit log says it.
fn action(method: &Method, template: &str) -> (Kind, Verb) {
    let kind = template.rsplit('/').find_map(|segment| match segment {
        "orgs" | "audit-logs" | "quotas" => Some(Kind::Org),
        "members" => Some(Kind::Member),
        "projects" => Some(Kind::Project),
        "envs" => Some(Kind::Env),
        "secrets" | "bundle" | "consumers" | "trash" => Some(Kind::Secret),
        "acl" => Some(Kind::Acl),
        "service-accounts" | "orphans" => Some(Kind::ServiceAccount),
        "backups" => Some(Kind::Backup),
        "keys" => Some(Kind::Key),
        _ => None,
    });
    let kind = kind.unwrap_or(Kind::Org);
    let last = template.rsplit('/').next().unwrap_or_default();
    let verb = match (last, method.as_str(), kind) {
        ("rotate", _, _) => Verb::Rotate,
        ("rollback", _, _) => Verb::Set,
        ("{org}", "PATCH", _) => Verb::Rename,
        ("restore", _, _) => Verb::Restore,
        ("bundle", _, _) | ("audit-logs" | "quotas", "GET", _) => Verb::Read,
        (_, "POST", Kind::Acl) => Verb::Grant,
        (_, "DELETE", Kind::Acl) => Verb::Revoke,
        (_, "PUT", Kind::Secret) => Verb::Set,
        (_, "POST", _) => Verb::Create,
        (_, "DELETE", _) => Verb::Delete,
        (_, "PUT" | "PATCH", _) => Verb::Update,
        (last, _, _) if last.starts_with('{') => Verb::Read,
        _ => Verb::List,
    };
    (kind, verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_the_action_of_its_success() {
        for (method, template, want) in [
            ("POST", "/api/orgs", "org.create"),
            ("PATCH", "/api/orgs/{org}", "org.rename"),
            ("DELETE", "/api/orgs/{org}", "org.delete"),
            ("GET", "/api/orgs/{org}/audit-logs", "org.read"),
            ("GET", "/api/orgs/{org}/members", "member.list"),
            ("POST", "/api/orgs/{org}/members", "member.create"),
            ("PATCH", "/api/orgs/{org}/members/{user_id}", "member.update"),
            ("DELETE", "/api/orgs/{org}/projects/{project}", "project.delete"),
            ("POST", "/api/orgs/{org}/projects/{project}/envs", "env.create"),
            ("POST", "/api/orgs/{org}/acl", "acl.grant"),
            ("DELETE", "/api/orgs/{org}/acl/{id}", "acl.revoke"),
            (
                "POST",
                "/api/orgs/{org}/service-accounts/{id}/rotate",
                "service_account.rotate",
            ),
            ("GET", "/api/orgs/{org}/service-accounts/{id}", "service_account.read"),
            ("POST", "/api/orgs/{org}/trash/{id}/restore", "secret.restore"),
            ("GET", "/api/audit-logs", "org.read"),
            ("POST", "/api/keys/rotate", "key.rotate"),
            ("GET", "/api/backups", "backup.list"),
        ] {
            let (kind, verb) = action(&method.parse().unwrap(), template);
            assert_eq!(format!("{kind}.{verb}"), want, "{method} {template}");
        }
    }

    #[test]
    fn names_are_those_of_the_path_if_they_are_names() {
        let id = Uuid::now_v7();
        let names = Names::of(
            "/api/orgs/{org}/projects/{project}/envs/{env}/things/{id}",
            &format!("/api/orgs/acme/projects/shop/envs/prod/things/{id}"),
        );
        let want = Names {
            organization: Some("acme".into()),
            project: Some("shop".into()),
            environment: Some("prod".into()),
            id: Some(id),
        };
        assert_eq!(names, want);
        let names = Names::of("/api/orgs/{org}/projects/{project}", "/api/orgs/acme/projects/A%0Ab");
        assert_eq!((names.organization.as_deref(), names.project), (Some("acme"), None));
        let names = Names::of("/api/orgs/{org}/members", "/api/orgs/%61c%6De/members");
        assert_eq!(names.organization.as_deref(), Some("acme"));
    }
}
