//! ACL rules: for admins and owners.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sealpod_core::Pattern;
use sealpod_core::wire::org::{self as wire, Permission, SubjectType};
use sealpod_core::wire::people::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::body::fields::{boolean, one_of, parsed, uuid};
use crate::body::{Fields, Path, Query, QueryFields, ReadFields, ReadQuery, Unread};
use crate::error::ApiError;
use crate::ids::{AccountId, RuleId, UserId};
use crate::routes::Problems;
use crate::routes::links::created;
use crate::store::{AclRule, NewRule, Object, RuleQuery, StoreError, Subject};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, upsert))
        .routes(routes!(get, delete))
}

const SUBJECT_TYPES: [(&str, SubjectType); 2] = [
    ("user", SubjectType::User),
    ("service_account", SubjectType::ServiceAccount),
];

const PERMISSIONS: [(&str, Permission); 3] = [
    ("read", Permission::Read),
    ("write", Permission::Write),
    ("admin", Permission::Admin),
];

impl ReadFields for wire::CreateAclRule {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let subject_type = fields.required("subject_type", one_of(&SUBJECT_TYPES));
        let subject_id = fields.optional("subject_id", uuid);
        let email = fields.optional("email", parsed);
        let project_pattern = fields.required("project_pattern", parsed);
        let env_pattern = fields.required("env_pattern", parsed);
        let key_pattern = fields.or("key_pattern", Pattern::any(), parsed);
        let configurations = fields.or("configurations", false, boolean);
        let permission = fields.required("permission", one_of(&PERMISSIONS));
        if let (Some(kind), Some(id), Some(email)) = (subject_type, &subject_id, &email) {
            match (kind, id, email) {
                (SubjectType::User | SubjectType::ServiceAccount, Some(_), None)
                | (SubjectType::User, None, Some(_)) => {}
                (SubjectType::User, _, _) => fields.fault("subject_id", "or `email` is required, one of the two"),
                (SubjectType::ServiceAccount, None, _) => fields.fault("subject_id", "is required"),
                (SubjectType::ServiceAccount, _, Some(_)) => fields.fault("email", "is for users only"),
            }
        }
        Some(Self {
            subject_type: subject_type?,
            subject_id: subject_id?,
            email: email?,
            project_pattern: project_pattern?,
            env_pattern: env_pattern?,
            key_pattern: key_pattern?,
            configurations: configurations?,
            permission: permission?,
        })
    }
}

fn rule(rule: AclRule) -> wire::AclRule {
    wire::AclRule {
        id: rule.id.0,
        subject_type: rule.subject.kind(),
        subject_id: rule.subject.id(),
        email: rule.email,
        project_pattern: rule.project_pattern,
        env_pattern: rule.env_pattern,
        key_pattern: rule.key_pattern,
        configurations: rule.configurations,
        permission: rule.permission,
        created_at: rule.created_at,
        updated_at: rule.updated_at,
    }
}

/// `?subject_type=&subject_id=&limit=&after=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Rules {
    /// Only rules for subjects of this kind
    subject_type: Option<SubjectType>,
    /// Only the rules of this user or service account
    subject_id: Option<Uuid>,
    /// 1–1000; all without it
    limit: Option<u32>,
    /// Begin behind the rule of this id
    after: Option<Uuid>,
}

impl ReadQuery for Rules {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let id = |text: &str| text.parse::<Uuid>().map_err(|_| "must be a UUID".to_owned());
        let subject_type = query.one("subject_type", |text| {
            let choice = SUBJECT_TYPES.iter().find(|(name, _)| *name == text);
            choice.map_or_else(
                || Err("must be `user` or `service_account`".to_owned()),
                |(_, kind)| Ok(*kind),
            )
        });
        let subject_id = query.one("subject_id", id);
        let limit = limit(query);
        let after = query.one("after", id);
        Some(Self {
            subject_type: subject_type?,
            subject_id: subject_id?,
            limit: limit?,
            after: after?,
        })
    }
}

/// List the rules of an organization
#[utoipa::path(
    get, path = "/api/orgs/{org}/acl", tag = "acl", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Rules),
    responses((status = 200, description = "Oldest first", body = [wire::AclRule]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(wanted): Query<Rules>,
) -> Result<Json<Vec<wire::AclRule>>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    let query = RuleQuery {
        subject_type: wanted.subject_type,
        subject_id: wanted.subject_id,
        after: wanted.after.map(RuleId),
        limit: wanted.limit,
    };
    let rules = app.store().rules(organization.id, query).await?;
    Ok(Json(rules.into_iter().map(rule).collect()))
}

/// Grant a rule, or change the one of the same subject and patterns
#[utoipa::path(
    post, path = "/api/orgs/{org}/acl", tag = "acl", security(("admin_key" = []), ("session" = [])), params(("org" = String, Path)),
    request_body = wire::CreateAclRule,
    responses((status = 201, body = wire::AclRule), (status = 200, description = "Changed", body = wire::AclRule), Problems),
)]
async fn upsert(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
    body: Unread<wire::CreateAclRule>,
) -> Result<Response, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    let body = body.read()?;
    let subject = match (body.subject_type, body.subject_id, body.email) {
        (SubjectType::User, Some(id), _) => Subject::User(UserId(id)),
        (SubjectType::ServiceAccount, Some(id), _) => Subject::ServiceAccount(AccountId(id)),
        (_, None, Some(email)) => Subject::User(app.store().member_by_email(organization.id, email).await?.user),
        (_, None, None) => return Err(StoreError::NotFound(Object::Subject).into()),
    };
    let new = NewRule {
        subject,
        project_pattern: body.project_pattern,
        env_pattern: body.env_pattern,
        key_pattern: body.key_pattern,
        configurations: body.configurations,
        permission: body.permission,
    };
    let (granted, is_new) = app.store().upsert_rule(organization.id, new, caller.by()).await?;
    let granted = rule(granted);
    if is_new {
        created(&format!("/api/orgs/{}/acl/{}", organization.name, granted.id), granted)
    } else {
        Ok(Json(granted).into_response())
    }
}

/// Get a rule
#[utoipa::path(
    get, path = "/api/orgs/{org}/acl/{id}", tag = "acl", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)), responses((status = 200, body = wire::AclRule), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<Json<wire::AclRule>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    Ok(Json(rule(app.store().rule(organization.id, RuleId(id)).await?)))
}

/// Revoke a rule
#[utoipa::path(
    delete, path = "/api/orgs/{org}/acl/{id}", tag = "acl", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)), responses((status = 204), Problems),
)]
async fn delete(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    app.store()
        .delete_rule(organization.id, RuleId(id), caller.by())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
