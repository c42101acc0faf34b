//! Reads of the audit log: what the logs of an organization (`orgs::audit`) and of the instance have in common, and
//! the latter.

mod cursor;
mod export;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::Time;
use sealpod_core::wire::audit as wire;
use sealpod_core::wire::people::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::audit::{Chain, Kind, Verb};
use crate::auth::Caller;
use crate::body::{Query, QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::store::AuditQuery;
use cursor::Cursor;
use export::Export;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(instance))
}

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: u64 = 100;

/// What both calls take.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// `<resource>.<verb>`
    #[param(value_type = Option<String>)]
    action: Option<(Kind, Verb)>,
    actor_id: Option<Uuid>,
    /// The first half of an action
    #[param(value_type = Option<String>)]
    resource_type: Option<Kind>,
    resource_id: Option<Uuid>,
    /// The earliest time, included
    since: Option<Time>,
    /// The latest time, included
    until: Option<Time>,
    /// Most entries of the page: 1 to 100, 20 where it is absent
    #[param(value_type = Option<u64>)]
    limit: Option<usize>,
    /// `next_cursor` of the page before
    #[param(value_type = Option<String>)]
    after: Option<Cursor>,
}

impl ReadQuery for Filters {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let action = query.one("action", action);
        let actor_id = query.one("actor_id", uuid);
        let resource_type = query.one("resource_type", kind);
        let resource_id = query.one("resource_id", uuid);
        let (since, until) = (query.one("since", time), query.one("until", time));
        let limit = query.whole("limit", 1, MAX_LIMIT);
        let after = query.one("after", |text| text.parse::<Cursor>().map_err(|why| why.to_string()));
        let (since, until) = (since?, until?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            query.fault("since", "must not be after `until`");
        }
        Some(Self {
            action: action?,
            actor_id: actor_id?,
            resource_type: resource_type?,
            resource_id: resource_id?,
            since,
            until,
            limit: limit?.and_then(|limit| usize::try_from(limit).ok()),
            after: after?,
        })
    }
}

impl From<Filters> for AuditQuery {
    fn from(filters: Filters) -> Self {
        Self {
            action: filters.action,
            actor_id: filters.actor_id,
            resource_type: filters.resource_type,
            resource_id: filters.resource_id,
            since: filters.since,
            until: filters.until,
            before: filters.after.map(|cursor| cursor.0),
            limit: filters.limit.unwrap_or(DEFAULT_LIMIT),
        }
    }
}

fn action(text: &str) -> Result<(Kind, Verb), String> {
    text.split_once('.')
        .and_then(|(kind, verb)| Some((kind.parse().ok()?, verb.parse().ok()?)))
        .ok_or_else(|| {
            format!(
                "must be `<resource>.<verb>` with a resource of {} and a verb of {}",
                words(Kind::ALL.iter().map(|kind| kind.as_str())),
                words(Verb::ALL.iter().map(|verb| verb.as_str())),
            )
        })
}

fn kind(text: &str) -> Result<Kind, String> {
    text.parse()
        .map_err(|_| format!("must be one of {}", words(Kind::ALL.iter().map(|kind| kind.as_str()))))
}

fn words<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn uuid(text: &str) -> Result<Uuid, String> {
    // The library's message would quote a character of the text.
    text.parse().map_err(|_| "must be a UUID".to_owned())
}

fn time(text: &str) -> Result<Time, String> {
    text.parse::<Time>().map_err(|why| why.to_string())
}

/// Whose log is read.
#[derive(Debug, Clone)]
pub enum Log {
    /// The instance's own: superadmins only.
    Instance,
    /// That of the organization of this name: its administrators, and superadmins.
    Organization(String),
}

impl Log {
    /// Its chain, if the caller may read it as of now.
    async fn chain(&self, app: &App, caller: &Caller) -> Result<Chain, ApiError> {
        match self {
            Self::Instance => {
                caller.superadmin()?;
                Ok(Chain::Instance)
            }
            Self::Organization(name) => {
                let member = caller.within(app, name).await?;
                member.require(Role::Admin)?;
                Ok(Chain::Organization(member.organization.id))
            }
        }
    }
}

/// One page as JSON; or everything as JSON lines, where the caller accepts these.
///
/// Reading the log is not itself on record: no resource of an action stands for it.
pub async fn answer(
    app: App,
    caller: Caller,
    log: Log,
    headers: &HeaderMap,
    filters: Filters,
) -> Result<Response, ApiError> {
    let chain = log.chain(&app, &caller).await?;
    let limit = filters.limit;
    let query = AuditQuery::from(filters);
    if accepts_lines(headers) {
        let export = Export {
            app,
            caller,
            log,
            chain,
            query,
            left: limit,
        };
        return export.begin().await;
    }
    let page = app.store().audit_page(chain, query).await?;
    let page = wire::AuditPage {
        entries: page.entries.into_iter().map(Into::into).collect(),
        next_cursor: page.next.map(|next| Cursor(next).to_string()),
    };
    Ok(Json(page).into_response())
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter();
    ranges
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let essence = range.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(wire::JSON_LINES)
        })
}

/// Read the instance's audit log
///
/// Superadmins only: sessions, failed logins, backups, keys, and organizations made and deleted. Parameters and
/// answers are those of an organization's audit log.
#[utoipa::path(
    get, path = "/api/audit-logs", tag = "audit", security(("admin_key" = []), ("session" = [])),
    params(Filters),
    responses(
        (status = 200, description = "Newest first", content(
            (wire::AuditPage = "application/json"), (wire::AuditEntry = "application/x-ndjson"),
        )),
        Problems,
    ),
)]
async fn instance(
    caller: Caller,
    State(app): State<App>,
    headers: HeaderMap,
    Query(filters): Query<Filters>,
) -> Result<Response, ApiError> {
    answer(app, caller, Log::Instance, &headers, filters).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn json_lines_are_told_by_their_media_type() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accepts_lines(&headers)
        };
        assert!(accepts("application/x-ndjson"));
        assert!(accepts("application/json;q=0.5, Application/X-NDJSON ; q=0.9"));
        for other in ["*/*", "application/json", "application/x-ndjson-seq", ""] {
            assert!(!accepts(other), "{other}");
        }
        assert!(!accepts_lines(&HeaderMap::new()));
    }

    #[test]
    fn an_action_is_two_known_words() {
        assert_eq!(action("secret.login_failed"), Ok((Kind::Secret, Verb::LoginFailed)));
        for bad in [
            "",
            "secret",
            "secret.",
            ".set",
            "secret.set.x",
            "Secret.set",
            "canary.set",
        ] {
            let why = action(bad).unwrap_err();
            assert!(why.contains("service_account") && why.contains("login_failed"), "{why}");
            assert!(!why.contains("canary"));
        }
    }
}
