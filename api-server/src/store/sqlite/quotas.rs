use rusqlite::Connection;

use super::super::{OrganizationRef, Quota, QuotaUpdate, Quotas, Refusal, Result, Usage};
use super::organizations;
use super::projects::changed;
use super::row::{integer, number};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::OrganizationId;

/// How the trigger `quotas_enforce` begins what it says.
const OVER: &str = "over quota: ";

pub(in super::super) fn find(conn: &Connection, organization: &OrganizationRef) -> Result<Quotas> {
    of(conn, organizations::find(conn, organization)?.id)
}

fn of(conn: &Connection, organization: OrganizationId) -> Result<Quotas> {
    let mut statement = conn.prepare_cached(
        "SELECT max_projects, projects, max_secrets, secrets, max_value_bytes, value_bytes
         FROM quotas WHERE organization_id = ?1",
    )?;
    let quotas = statement.query_row([organization], |row| {
        let usage = |at| {
            Ok::<_, rusqlite::Error>(Usage {
                limit: number(row, at)?,
                used: number(row, at + 1)?,
            })
        };
        Ok(Quotas {
            projects: usage(0)?,
            secrets: usage(2)?,
            value_bytes: usage(4)?,
        })
    })?;
    Ok(quotas)
}

pub(in super::super) fn update(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    update: &QuotaUpdate,
    by: &By,
) -> Result<Quotas> {
    let organization = organizations::find(tx.conn, organization)?;
    let before = of(tx.conn, organization.id)?;
    let differs = |new: Option<u64>, usage: Usage| new.is_some_and(|new| new != usage.limit);
    let fields = changed(&[
        (Quota::Projects.as_str(), differs(update.projects, before.projects)),
        (Quota::Secrets.as_str(), differs(update.secrets, before.secrets)),
        (
            Quota::ValueBytes.as_str(),
            differs(update.value_bytes, before.value_bytes),
        ),
    ]);
    if fields.is_empty() {
        return Ok(before);
    }
    tx.conn
        .prepare_cached(
            "UPDATE quotas SET max_projects = coalesce(?2, max_projects), max_secrets = coalesce(?3, max_secrets),
                 max_value_bytes = coalesce(?4, max_value_bytes) WHERE organization_id = ?1",
        )?
        .execute((
            organization.id,
            update.projects.map(integer),
            update.secrets.map(integer),
            update.value_bytes.map(integer),
        ))?;
    let metadata = Metadata {
        fields: fields.iter().map(|field| format!("quotas.{field}")).collect(),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Org, Verb::Update)
        .resource(organization.id.0, &organization.name)
        .metadata(metadata);
    tx.audit(Chain::Organization(organization.id), entry, by)?;
    of(tx.conn, organization.id)
}

/// The quota that stood in the way, if this is what the trigger `quotas_enforce` says.
pub(super) fn refused(text: &str) -> Option<Refusal> {
    let (name, limit) = text.strip_prefix(OVER)?.split_once(' ')?;
    let quota = Quota::ALL.into_iter().find(|quota| quota.as_str() == name)?;
    Some(Refusal::OverQuota(quota, limit.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_trigger_says_is_understood() {
        assert_eq!(
            refused("over quota: value_bytes 7"),
            Some(Refusal::OverQuota(Quota::ValueBytes, 7))
        );
        for other in [
            "over quota: values 7",
            "over quota: secrets x",
            "audit entries are never changed",
        ] {
            assert_eq!(refused(other), None, "{other}");
        }
    }
}
