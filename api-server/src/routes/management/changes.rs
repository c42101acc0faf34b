//! What moved, for the operator: one long poll in place of many lists.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use sealpod_core::wire::bundle::MAX_WAIT;
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, POLL_SLACK};
use crate::auth::Admin;
use crate::body::{Query, QueryFields, ReadQuery};
use crate::changes::{self, Cursor};
use crate::error::ApiError;
use crate::routes::Problems;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get))
}

/// `?since=&wait=`
struct Question {
    since: Option<Cursor>,
    wait: Duration,
}

impl ReadQuery for Question {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let since = query.parsed::<Cursor>("since");
        let wait = query.whole("wait", 0, MAX_WAIT);
        let mut since = since?;
        if since.len() > 1 {
            query.fault("since", "is given more than once");
            return None;
        }
        Some(Self {
            since: since.pop(),
            wait: Duration::from_secs(wait?.unwrap_or(0)),
        })
    }
}

/// What moved since a cursor; with `wait`, wait for it. Without `since`: the cursor of now, and no changes
///
/// Applications, environments, secrets, versions, configurations, rules and service accounts of the default organization,
/// whichever plane changed them, and versions whose time began or ended. Several changes of one object are told once;
/// what is deleted takes along what is in it. Changes are told by the time they are seen in reads. A cursor that is too old, or of
/// another database, is 410 `cursor_gone`: take a new cursor first, then list.
#[utoipa::path(
    get, path = "/api/management/changes", tag = "changes", security(("admin_key" = [])),
    params(
        ("since" = Option<String>, Query, description = "The `cursor` of the answer before"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for a change, 0–120"),
    ),
    responses(
        (status = 200, description = "Where nothing moved, a new cursor and no changes", body = wire::Changes),
        Problems, changes::Gone
    ),
)]
async fn get(
    admin: Admin,
    State(app): State<App>,
    Query(Question { since, wait }): Query<Question>,
) -> Result<Json<wire::Changes>, ApiError> {
    let answering = changes::answer(&app, &admin, since, wait);
    let answered = tokio::time::timeout(wait + POLL_SLACK, answering).await;
    answered.map_err(|_| ApiError::Timeout)?.map(Json)
}
