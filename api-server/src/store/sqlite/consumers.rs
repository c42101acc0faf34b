use std::collections::{HashMap, HashSet};

use rusqlite::OptionalExtension;

use super::super::{Location, Reported, Result, Running, Subject};
use super::reader::View;
use super::row::{At, number};
use super::secrets;
use super::values::ACTIVE;

pub(in super::super) fn running(view: &View<'_>, location: &Location, reported: Reported) -> Result<Running> {
    let Reported { subjects, keys } = reported;
    let mut account = view.conn.prepare_cached(
        "SELECT 1 FROM service_accounts WHERE id = ?2 AND organization_id = ?1 AND deleted_at IS NULL",
    )?;
    let mut member = view
        .conn
        .prepare_cached("SELECT 1 FROM members WHERE organization_id = ?1 AND user_id = ?2")?;
    let mut present = HashSet::new();
    for subject in subjects {
        view.go_on()?;
        let is_present = match subject {
            Subject::ServiceAccount(id) => account.exists((location.organization, id))?,
            Subject::User(id) => member.exists((location.organization, id))?,
        };
        if is_present {
            present.insert(subject);
        }
    }
    let mut newest = view.conn.prepare_cached(&format!(
        "SELECT v.number FROM versions v WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND {ACTIVE}
         ORDER BY v.number DESC LIMIT 1"
    ))?;
    let mut active = HashMap::new();
    for key in keys {
        view.go_on()?;
        let Some(secret) = secrets::by_name(view.conn, location.project, &key)? else {
            continue;
        };
        let found = newest
            .query_row((At(view.now), secret.id, location.environment), |row| number(row, 0))
            .optional()?;
        active.extend(found.map(|number| (key, number)));
    }
    Ok(Running { present, active })
}
