//! Answers a question for changes, at once or after waiting for one.

use std::collections::HashMap;
use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::management::{Change, ChangeKind, Changes};
use tokio::time::Instant;

use super::{Cursor, Place};
use crate::app::App;
use crate::audit::{Kind, Verb};
use crate::auth::Admin;
use crate::error::ApiError;
use crate::limits::resting;
use crate::store::{ChangeEntry, ChangesPage, ChangesQuery, Edge, Position, Topic};

/// Entries of the log that one answer reads; the next one reads on, at once.
const MAX_ENTRIES: u32 = 2_000;
/// Shortest sleep, so that windows that end one behind the other cannot make a poll spin.
const MIN_SLEEP: Duration = Duration::from_millis(20);

/// Without a cursor, only where things stand. With one: what moved since, or, where nothing has, what moves first within
/// `wait`.
pub async fn answer(app: &App, admin: &Admin, since: Option<Cursor>, wait: Duration) -> Result<Changes, ApiError> {
    let organization = app.store().organization(app.default_organization()).await?.id;
    let place = Place { app, organization };
    let Some(since) = since else {
        let now = app.store().position(organization).await?;
        return Ok(told(&place, now, vec![]));
    };
    let mut after = place.position(since).ok_or(ApiError::CursorGone(
        "this cursor is of another database, as after a restored backup; list what you watch again and begin without `since`",
    ))?;
    let deadline = Instant::now() + wait;
    let _open = (
        app.limits().poll(admin.credential(app.limits()), 0)?,
        app.metrics().poll(),
    );
    // Before the first look, so that nothing falls between a look and the wait.
    let watcher = app.store().watch(&[Topic::Changes(organization)]);
    let mut admin_keys = app.admin_keys().subscribe();
    loop {
        let query = ChangesQuery {
            organization,
            after,
            limit: MAX_ENTRIES,
        };
        let ChangesPage::Found {
            entries,
            edges,
            upto,
            more,
            next_edge,
        } = app.store().changes(query).await?
        else {
            return Err(ApiError::CursorGone(
                "what moved since this cursor is not known any more; list what you watch again and begin without `since`",
            ));
        };
        let changes = coalesced(entries, edges);
        if !changes.is_empty() || (!more && Instant::now() >= deadline) {
            return Ok(told(&place, upto, changes));
        }
        // None of this is told, so nobody need look at it again; what is told may stand behind it.
        after = upto;
        if more {
            continue;
        }
        let until = next_edge.map_or(deadline, instant).min(deadline);
        let change = async {
            tokio::select! {
                () = watcher.changed() => Ok(false),
                () = admin_keys.changed() => Ok(true),
                () = tokio::time::sleep_until(until) => Ok(false),
                () = app.shutdown().cancelled() => Err(ApiError::Stopping),
            }
        };
        if resting(change).await? {
            admin.still(app).await?;
        }
    }
}

fn told(place: &Place<'_>, upto: Position, changes: Vec<Change>) -> Changes {
    Changes {
        cursor: place.cursor(upto).to_string(),
        changes,
    }
}

/// When the clock will have reached `time`.
fn instant(time: Time) -> Instant {
    let left = time.microseconds().saturating_sub(Time::now().microseconds());
    let left = Duration::from_micros(u64::try_from(left).unwrap_or(0)) + Duration::from_millis(1);
    Instant::now() + left.clamp(MIN_SLEEP, Duration::from_hours(1))
}

/// Each object once, as it moved last.
fn coalesced(entries: Vec<ChangeEntry>, edges: Vec<Edge>) -> Vec<Change> {
    let logged = entries.into_iter().filter_map(change);
    let mut last = HashMap::new();
    let mut changes = Vec::new();
    for change in logged.chain(edges.into_iter().map(edge)) {
        let object = (change.kind, change.id, change.environment.clone());
        if let Some(earlier) = last.insert(object, changes.len()) {
            changes[earlier] = None;
        }
        changes.push(Some(change));
    }
    changes.into_iter().flatten().collect()
}

/// `None` for what the feed does not tell: people, keys of applications, and the organization itself.
fn change(entry: ChangeEntry) -> Option<Change> {
    let kind = match (entry.kind, &entry.environment) {
        (Kind::Project, _) => ChangeKind::Application,
        (Kind::Env, _) => ChangeKind::Environment,
        (Kind::Secret, Some(_)) => ChangeKind::Version,
        (Kind::Secret, None) => ChangeKind::Secret,
        (Kind::Config, _) => ChangeKind::Configuration,
        (Kind::Acl, _) => ChangeKind::Grant,
        (Kind::ServiceAccount, _) => ChangeKind::Account,
        (Kind::Org | Kind::Member | Kind::Session | Kind::Backup | Kind::Key, _) => return None,
    };
    Some(Change {
        kind,
        id: entry.resource?,
        deleted: matches!(entry.verb, Verb::Delete | Verb::Revoke),
        name: entry.name.filter(|_| kind != ChangeKind::Grant),
        application: entry.project,
        environment: entry.environment,
        subject_id: entry.subject,
    })
}

fn edge(edge: Edge) -> Change {
    Change {
        kind: ChangeKind::Version,
        id: edge.secret.0,
        deleted: false,
        name: Some(edge.name),
        application: Some(edge.project),
        environment: Some(edge.environment),
        subject_id: None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn entry(kind: Kind, verb: Verb, id: u128, environment: Option<&str>) -> ChangeEntry {
        ChangeEntry {
            kind,
            verb,
            resource: Some(Uuid::from_u128(id)),
            name: Some("name".to_owned()),
            project: Some("shop".to_owned()),
            environment: environment.map(str::to_owned),
            subject: None,
        }
    }

    #[test]
    fn each_object_is_told_once_in_the_order_of_its_last_move() {
        let entries = vec![
            entry(Kind::Project, Verb::Create, 1, None),
            entry(Kind::Secret, Verb::Set, 2, Some("dev")),
            entry(Kind::Secret, Verb::Set, 2, Some("prod")),
            entry(Kind::Member, Verb::Update, 3, None),
            entry(Kind::Project, Verb::Delete, 1, None),
            entry(Kind::Secret, Verb::Set, 2, Some("dev")),
            entry(Kind::Secret, Verb::Delete, 2, None),
        ];
        let told: Vec<_> = coalesced(entries, vec![])
            .into_iter()
            .map(|change| (change.kind, change.environment, change.deleted))
            .collect();
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                (ChangeKind::Version, owned("prod"), false),
                (ChangeKind::Application, None, true),
                (ChangeKind::Version, owned("dev"), false),
                (ChangeKind::Secret, None, true),
            ]
        );
    }
}
