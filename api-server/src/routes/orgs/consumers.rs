//! Who runs which version: sidecars say it, people and the operator read it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use sealpod_core::Time;
use sealpod_core::names::{self, MAX_SECRET_NAME, NameError};
use sealpod_core::wire::consumers::{self as wire, MAX_REPORT_BYTES, MAX_REPORTED_KEYS};
use sealpod_core::wire::org::Permission;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::secrets::located;
use super::versions::MAX_VERSION;
use super::{InEnvironment, environment, limit};
use crate::app::App;
use crate::audit::Verb;
use crate::auth::acl::EnvironmentRights;
use crate::auth::{Caller, Member};
use crate::body::fields::{Fault, string, whole_from};
use crate::body::{Fields, Json, Path, Query, QueryFields, ReadFields, ReadQuery, Unread};
use crate::error::ApiError;
use crate::reports::{Place, Report};
use crate::routes::Problems;
use crate::store::{Location, Reported, Running};
use crate::values;

/// Items that are in memory as text at a time while a list is sent.
const CHUNK: usize = 100;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(report, withdraw))
        .routes(routes!(list))
}

impl ReadFields for wire::BundleReport {
    const LIMIT: usize = MAX_REPORT_BYTES;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let pod = fields.required("pod", named(names::check_dns_name));
        let namespace = fields.required("namespace", named(names::check_label));
        let node = fields.required("node", named(names::check_dns_name));
        let versions = fields.required("versions", versions);
        let agent_version = fields.required("agent_version", named(names::check_program_version));
        Some(Self {
            pod: pod?,
            namespace: namespace?,
            node: node?,
            versions: versions?,
            agent_version: agent_version?,
        })
    }
}

/// Text that keeps to a rule of names.
fn named(check: fn(&str) -> Result<(), NameError>) -> impl FnOnce(Json) -> Result<String, Fault> {
    move |json| {
        let text = string(json)?;
        check(&text).map_err(|why| why.to_string())?;
        Ok(text)
    }
}

/// Numbers of versions by key.
fn versions(json: Json) -> Result<BTreeMap<String, u64>, Fault> {
    let Json::Object(entries) = json else {
        return Err("must be an object of version numbers by key".to_owned());
    };
    if entries.len() > MAX_REPORTED_KEYS {
        return Err(format!("must have at most {MAX_REPORTED_KEYS} keys"));
    }
    let mut versions = BTreeMap::new();
    for (key, number) in entries {
        names::check_free_text(&key, MAX_SECRET_NAME).map_err(|why| format!("has a key that {why}"))?;
        let number = whole_from(1, MAX_VERSION)(number).map_err(|why| format!("has a version that {why}"))?;
        if versions.insert(key, number).is_some() {
            return Err("must give each key once".to_owned());
        }
    }
    Ok(versions)
}

/// `?namespace=&pod=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Pod {
    /// Namespace of the pod
    #[param(value_type = sealpod_core::openapi::NamespaceName)]
    namespace: String,
    /// Name of the pod
    #[param(value_type = sealpod_core::openapi::PodName)]
    pod: String,
}

impl ReadQuery for Pod {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let namespace = required(query, "namespace", names::check_label);
        let pod = required(query, "pod", names::check_dns_name);
        Some(Self {
            namespace: namespace?,
            pod: pod?,
        })
    }
}

fn required(query: &mut QueryFields, name: &str, check: fn(&str) -> Result<(), NameError>) -> Option<String> {
    let text = query.required(name)?;
    check(&text).map_err(|why| query.fault(name, why)).ok().map(|()| text)
}

/// Who may speak of pods in an environment: whoever may read anything there. Answers who that is, and where.
async fn reporter(app: &App, caller: &Caller, path: InEnvironment) -> Result<(Member, Arc<Location>), ApiError> {
    let (member, _, location) = located(app, caller, path).await?;
    values::require_any(app, &member, &location, Verb::Read).await?;
    Ok((member, location))
}

fn place(member: &Member, location: &Location, namespace: String, pod: String) -> Place {
    Place {
        environment: location.environment,
        caller: member.identity(),
        namespace: namespace.into(),
        pod: pod.into(),
    }
}

/// Say which versions a pod has loaded: after each change, and every five minutes; it is kept for fifteen
#[utoipa::path(
    post, path = "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report", tag = "consumers",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path)),
    request_body = wire::BundleReport,
    responses(
        (status = 200, description = "Kept; there is nothing to answer"),
        (status = 413, description = "A report has at most 131072 bytes"),
        Problems
    ),
)]
async fn report(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    Query(()): Query<()>,
    body: Unread<wire::BundleReport>,
) -> Result<StatusCode, ApiError> {
    let (member, location) = reporter(&app, &caller, path).await?;
    let wire::BundleReport {
        pod,
        namespace,
        node,
        mut versions,
        agent_version,
    } = body.read()?;
    // Nobody is shown as a reader of what they may not read, whatever they say.
    let rights = member.rights();
    let rights = rights.within(values::place(&location));
    versions.retain(|key, _| rights.may(Permission::Read, key));
    let subject = member.subject().filter(|_| !member.caller().is_superadmin());
    app.reports().put(Report::new(
        place(&member, &location, namespace, pod),
        (member.by().actor, subject),
        (node, agent_version),
        &versions,
        (Time::now(), Instant::now()),
    ));
    Ok(StatusCode::OK)
}

/// Take back what the caller said of a pod, because it stops: 204 also where nothing was said
#[utoipa::path(
    delete, path = "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report", tag = "consumers",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), Pod),
    responses((status = 204), Problems),
)]
async fn withdraw(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    Query(Pod { namespace, pod }): Query<Pod>,
) -> Result<StatusCode, ApiError> {
    let (member, location) = reporter(&app, &caller, path).await?;
    app.reports().withdraw(&place(&member, &location, namespace, pod));
    Ok(StatusCode::NO_CONTENT)
}

/// `?actor_id=&limit=&after=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only what this service account or user said
    actor_id: Option<Uuid>,
    /// 1–1000; all without it
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Begin behind the item with this `id`
    #[param(value_type = Option<String>)]
    after: Option<Position>,
}

impl ReadQuery for Which {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let actor_id = query.one("actor_id", |text| text.parse().map_err(|_| "must be a UUID".to_owned()));
        let limit = limit(query);
        let after = query.one("after", |text| {
            Position::read(text)
                .ok_or_else(|| "is no place in this list; give the `id` of the last item of the page before".to_owned())
        });
        Some(Self {
            actor_id: actor_id?,
            limit: limit?,
            after: after?,
        })
    }
}

/// What the list is ordered by. Behind one that is not there any more the list goes on all the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    namespace: Box<str>,
    pod: Box<str>,
    caller: [u8; 16],
}

impl Position {
    fn of(report: &Report) -> Self {
        let place = &report.place;
        Self {
            namespace: place.namespace.clone(),
            pod: place.pod.clone(),
            caller: place.caller,
        }
    }

    /// `<namespace>/<pod>/<id of the caller>`
    fn read(text: &str) -> Option<Self> {
        let [namespace, pod, caller] = text.split('/').collect::<Vec<_>>().try_into().ok()?;
        let is_sound = names::check_label(namespace).is_ok() && names::check_dns_name(pod).is_ok();
        let caller: Uuid = caller.parse().ok().filter(|_| is_sound)?;
        Some(Self {
            namespace: namespace.into(),
            pod: pod.into(),
            caller: caller.into_bytes(),
        })
    }

    fn text(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pod, Uuid::from_bytes(self.caller))
    }
}

/// List which pods have loaded which versions, as their sidecars said in the last fifteen minutes
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}/consumers", tag = "consumers",
    security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), Which),
    responses((status = 200, description = "By namespace and pod", body = [wire::Consumer]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    Query(Which { actor_id, limit, after }): Query<Which>,
) -> Result<Response, ApiError> {
    let (member, environment) = environment(&app, &caller, path).await?;
    member.caller().person()?;
    let location = app.store().location(environment).await?;
    values::require_any(&app, &member, &location, Verb::List).await?;
    let mut reports: Vec<(Position, Arc<Report>)> = app
        .reports()
        .of(location.environment)
        .into_iter()
        .filter(|report| actor_id.is_none_or(|id| report.actor.id == Some(id)))
        .map(|report| (Position::of(&report), report))
        .filter(|(position, _)| after.as_ref().is_none_or(|after| position > after))
        .collect();
    reports.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let rights = member.rights().within(values::place(&location));
    let reported = reported(&reports, &rights);
    let running = app.store().running(location, reported).await?;
    let view = View { rights, running };
    let items = reports
        .into_iter()
        .filter_map(move |(position, report)| view.show(&position, &report))
        .take(limit.map_or(usize::MAX, |limit| limit as usize));
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json, Body::from_stream(stream::iter(Array::of(items)))).into_response())
}

/// Whom and what there is to look up: each once, and of the keys only those that whoever asks may read.
fn reported(reports: &[(Position, Arc<Report>)], rights: &EnvironmentRights) -> Reported {
    let subjects: HashSet<_> = reports.iter().filter_map(|(_, report)| report.subject).collect();
    // Most pods of a deployment have loaded the same, which is then read once.
    let mut distinct = HashSet::new();
    let different = reports.iter().filter(|(_, report)| distinct.insert(report.loaded()));
    let keys: HashSet<String> = different
        .flat_map(|(_, report)| report.versions().into_keys())
        .filter(|key| rights.may(Permission::Read, key))
        .collect();
    Reported {
        subjects: subjects.into_iter().collect(),
        keys: keys.into_iter().collect(),
    }
}

/// What somebody may see of reports.
struct View {
    rights: EnvironmentRights,
    running: Running,
}

impl View {
    /// The report as the answer has it; none if it is not for these eyes, or whoever made it has gone.
    fn show(&self, position: &Position, report: &Report) -> Option<wire::Consumer> {
        let is_present = |subject| self.running.present.contains(&subject);
        if !report.subject.is_none_or(is_present) {
            return None;
        }
        let mut versions = report.versions();
        versions.retain(|key, _| self.rights.may(Permission::Read, key));
        if versions.is_empty() && !matches!(self.rights, EnvironmentRights::Everything) {
            return None;
        }
        let is_stale = |(key, number): &(&String, &u64)| self.running.active.get(*key) != Some(*number);
        Some(wire::Consumer {
            id: position.text(),
            actor_type: report.actor.kind.as_str().to_owned(),
            actor_id: report.actor.id,
            actor_name: report.actor.name.clone(),
            namespace: report.place.namespace.to_string(),
            pod: report.place.pod.to_string(),
            node: report.node.to_string(),
            agent_version: report.agent_version.to_string(),
            stale: versions.iter().filter(is_stale).map(|(key, _)| key.clone()).collect(),
            versions,
            last_seen_at: report.seen_at,
        })
    }
}

/// A JSON array in pieces: what thousands of pods have loaded is not in memory as text at once.
struct Array<I> {
    items: I,
    /// Of what is sent already; none after the end.
    begun: Option<bool>,
}

impl<I: Iterator<Item = wire::Consumer>> Array<I> {
    fn of(items: I) -> Self {
        Self {
            items,
            begun: Some(false),
        }
    }
}

impl<I: Iterator<Item = wire::Consumer>> Iterator for Array<I> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut begun = self.begun.take()?;
        let mut text = Vec::new();
        if !begun {
            text.push(b'[');
        }
        let mut count = 0;
        for item in self.items.by_ref().take(CHUNK) {
            if begun {
                text.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut text, &item) {
                return Some(Err(error.into()));
            }
            (begun, count) = (true, count + 1);
        }
        if count < CHUNK {
            text.push(b']');
        } else {
            self.begun = Some(begun);
        }
        Some(Ok(text))
    }
}
