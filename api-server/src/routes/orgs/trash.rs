//! The trash of an organization: what was deleted, whichever plane did it, and its way back.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::org::Permission;
use sealpod_core::wire::people::Role;
use sealpod_core::wire::trash::{self as wire, TrashKind};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{Chain, Entry, Outcome, Verb};
use crate::auth::acl::{Place, Rights};
use crate::auth::{Caller, Member};
use crate::body::{Path, Query, QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::ids::{OrganizationId, TrashId};
use crate::routes::Problems;
use crate::routes::list::{self, List, Piece};
use crate::store::{TrashPage, Trashed};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, purge))
        .routes(routes!(restore))
}

/// `?limit=&after=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Part {
    /// 1–1000; all without it
    limit: Option<u32>,
    /// Begin behind this item, which need not be there any more
    after: Option<Uuid>,
}

impl ReadQuery for Part {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let limit = query.whole("limit", 1, 1_000);
        let after = query.at_most_one("after")?.map(|text| {
            Uuid::parse_str(&text).map_err(|_| query.fault("after", "must be the `id` of an item of this list"))
        });
        Some(Self {
            limit: limit?.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            after: after.transpose().ok()?,
        })
    }
}

/// What a caller with these rights may see and restore: all of it who administers, and else the versions of keys that
/// they may write. Larger things are deleted by those who administer, and come back by them.
fn may(rights: &Rights, item: &Trashed) -> bool {
    match (rights, &item.environment) {
        (Rights::Everything, _) => true,
        (Rights::Granted { .. }, Some((_, environment))) if item.kind == TrashKind::SecretVersions => {
            let place = Place {
                project_id: item.project.0,
                project: &item.project_slug,
                environment,
            };
            rights.within(place).may(Permission::Write, &item.name)
        }
        (Rights::Granted { .. }, _) => false,
    }
}

fn shown(app: &App, item: Trashed) -> wire::TrashItem {
    wire::TrashItem {
        id: item.id.0,
        kind: item.kind,
        name: item.name,
        project: item.project_slug,
        environment: item.environment.map(|(_, slug)| slug),
        versions: item.versions,
        deleted_at: item.deleted_at,
        deleted_by: item.deleted_by.name,
        purge_at: app.trash_days().end(item.deleted_at),
    }
}

/// Somebody of this organization who may write: no service account, and nobody of the role `member`.
async fn writer(app: &App, caller: &Caller, organization: &str) -> Result<Member, ApiError> {
    let member = caller.within(app, organization).await?;
    member.require(Role::Developer)?;
    Ok(member)
}

/// List what was deleted and can be restored
#[utoipa::path(
    get, path = "/api/orgs/{org}/trash", tag = "trash", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Part),
    responses((status = 200, description = "Newest first", body = [wire::TrashItem]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(part): Query<Part>,
) -> Result<Response, ApiError> {
    let member = writer(&app, &caller, &organization).await?;
    let (after, limit) = (part.after.map(TrashId), part.limit);
    let trash = Trash {
        organization: member.organization.id,
        rights: member.rights(),
    };
    match limit {
        Some(limit) => Ok(Json(trash.piece(&app, after, limit).await?.items).into_response()),
        None => list::everything(app, trash, after).await,
    }
}

struct Trash {
    organization: OrganizationId,
    rights: Rights,
}

impl List for Trash {
    type Item = wire::TrashItem;
    type Place = TrashId;

    async fn piece(&self, app: &App, after: Option<TrashId>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = TrashPage {
            after,
            limit: Some(limit + 1),
        };
        let rights = self.rights.clone();
        let permits = move |item: &Trashed| may(&rights, item);
        let items = app.store().trash(self.organization, page, permits).await?;
        Ok(Piece::cut(
            items.into_iter().map(|item| shown(app, item)).collect(),
            limit,
        ))
    }

    fn place(item: &Self::Item) -> TrashId {
        TrashId(item.id)
    }
}

/// The item of a path, if the caller may restore it; a refusal goes on record.
async fn writable(app: &App, member: &Member, id: TrashId, verb: Verb) -> Result<Trashed, ApiError> {
    let item = app.store().trashed(member.organization.id, id).await?;
    if !may(&member.rights(), &item) {
        deny(app, member, &item, verb).await?;
        return Err(ApiError::Denied(member.why_not(Permission::Write).into()));
    }
    Ok(item)
}

/// Get an item of the trash
#[utoipa::path(
    get, path = "/api/orgs/{org}/trash/{id}", tag = "trash", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = wire::TrashItem), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<Json<wire::TrashItem>, ApiError> {
    let member = writer(&app, &caller, &organization).await?;
    let item = writable(&app, &member, TrashId(id), Verb::Read).await?;
    Ok(Json(shown(&app, item)))
}

/// Restore what was deleted, as it was then
#[utoipa::path(
    post, path = "/api/orgs/{org}/trash/{id}/restore", tag = "trash", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, description = "What is there again", body = wire::Restored), Problems),
)]
async fn restore(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Restored>, ApiError> {
    let member = writer(&app, &caller, &organization).await?;
    let item = writable(&app, &member, TrashId(id), Verb::Restore).await?;
    let item = app.store().restore(item.organization, item.id, member.by()).await?;
    let note = (item.kind == TrashKind::Project && member.organization.name == app.default_organization()).then(|| {
        format!(
            "its application key did not come back; where an application uses one, make another with \
                 POST /api/management/applications/{}/rotate-key",
            item.project_slug
        )
    });
    Ok(Json(wire::Restored {
        kind: item.kind,
        id: item.object,
        name: item.name,
        project: item.project_slug,
        environment: item.environment.map(|(_, slug)| slug),
        versions: item.versions,
        note,
    }))
}

/// Purge what was deleted: it cannot be restored any more
#[utoipa::path(
    delete, path = "/api/orgs/{org}/trash/{id}", tag = "trash", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)), responses((status = 204), Problems),
)]
async fn purge(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let item = app.store().trashed(member.organization.id, TrashId(id)).await?;
    app.store().purge(item.id, member.by()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a refusal on record, at the same bounded rate as those of values.
async fn deny(app: &App, member: &Member, item: &Trashed, verb: Verb) -> Result<(), ApiError> {
    if !app.refusals().admit(member.identity()) {
        return Ok(());
    }
    let environment = item.environment.as_ref().map(|(_, slug)| slug.as_str());
    let entry = Entry::new(item.audit_kind(), verb)
        .resource(item.object, &item.name)
        .at(&item.project_slug, environment)
        .outcome(Outcome::Denied);
    app.store()
        .record(Chain::Organization(item.organization), entry, member.by())
        .await
        .map_err(|error| ApiError::unrecorded(&error))
}
