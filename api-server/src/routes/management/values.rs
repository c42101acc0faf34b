//! Values of a secret, which are only ever set here: the management plane never gives one out.

use axum::extract::State;
use axum::http::StatusCode;
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::{boolean, not_empty};
use crate::body::{Body, Fields, Json as Tree, Path, Query, ReadBody, VALUE_BODY_LIMIT};
use crate::error::{ApiError, FieldErrors};
use crate::routes::Problems;
use crate::values::{self, Absent, NewValue};

/// Most values of one call; one per environment is what it is for.
const MAX_VALUES: usize = 1_000;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(set))
}

/// An array of [`wire::SetValue`], read.
struct SetValues(Vec<NewValue>);

impl ReadBody for SetValues {
    const LIMIT: usize = VALUE_BODY_LIMIT;

    fn read(json: Tree, errors: &mut FieldErrors) -> Option<Self> {
        let Tree::Array(items) = json else {
            errors.add("body", "must be an array of objects, one for each environment");
            return None;
        };
        if items.len() > MAX_VALUES {
            errors.add("body", "must hold at most 1000 values");
            return None;
        }
        // Every item is read, so that the answer names the faults of all of them.
        let values: Vec<Option<NewValue>> = items
            .into_iter()
            .enumerate()
            .map(|(at, item)| {
                let mut fields = Fields::of(item, &format!("[{at}]."), errors)?;
                let value = value(&mut fields);
                fields.end();
                value
            })
            .collect();
        values.into_iter().collect::<Option<_>>().map(Self)
    }
}

fn value(fields: &mut Fields<'_>) -> Option<NewValue> {
    let environment = fields.required("environmentSlug", not_empty);
    let value = fields.value();
    let is_enabled = fields.or("isEnabled", true, boolean);
    let window = fields.window("expiresAt", "notBefore");
    let (expires_at, not_before) = window?;
    Some(NewValue {
        environment: environment?,
        value: value?,
        is_enabled: is_enabled?,
        not_before,
        expires_at,
    })
}

/// Set values: each appends a version, all of them or none
#[utoipa::path(
    post, path = "/api/management/applications/{slug}/secrets/{name}/values", tag = "secrets",
    security(("admin_key" = [])), params(("slug" = String, Path), ("name" = String, Path)),
    request_body = [wire::SetValue], responses((status = 200, description = "Empty"), Problems),
)]
async fn set(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(()): Query<()>,
    Body(SetValues(values)): Body<SetValues>,
) -> Result<StatusCode, ApiError> {
    let application = app.application(&slug);
    if values.is_empty() {
        app.store().secret(application, &name).await?;
    } else {
        values::set(&app, application, &name, &values, (Absent::Refuse, None), admin.by()).await?;
    }
    Ok(StatusCode::OK)
}
