//! `audit export`.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, bail};
use clap::Args;
use sealpod_core::Time;
use sealpod_core::wire::audit::AuditEntry;

use super::maintain::store_config;
use super::serve::block_on;
use super::{Failure, Outcome};
use crate::app::open_store;
use crate::audit::Chain;
use crate::config::StoreArgs;
use crate::ids::OrganizationId;
use crate::store::{Admit, Object, Store, StoreError};

/// Entries that are in memory at a time.
const CHUNK: u32 = 1_000;

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Name of the organization, or id of one that is deleted
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "instance",
        conflicts_with = "instance"
    )]
    organization: Option<String>,

    /// The log of the instance: sessions, failed logins, backups, keys, organizations made and deleted
    #[arg(long)]
    instance: bool,

    /// The earliest time of an entry, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,

    /// The latest time of an entry
    #[arg(long, value_name = "TIME")]
    until: Option<Time>,
}

pub fn export(args: ExportArgs) -> Outcome {
    let ExportArgs {
        store,
        organization,
        instance: _,
        since,
        until,
    } = args;
    let config = store_config(store, Admit::Current)?;
    block_on(async {
        let (store, _) = open_store(config).await?;
        let written = write(&store, organization, (since, until)).await;
        store.close().await;
        written
    })
}

/// Oldest first, as the chain goes.
async fn write(store: &Store, organization: Option<String>, (since, until): (Option<Time>, Option<Time>)) -> Outcome {
    let chain = chain(store, organization).await?;
    let mut output = BufWriter::new(io::stdout());
    let mut after = 0;
    loop {
        let entries = store.audit_following(chain, after, CHUNK).await?;
        let Some(last) = entries.last() else { break };
        after = last.seq;
        for entry in entries {
            let at = entry.created_at;
            if since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until) {
                let line = serde_json::to_vec(&AuditEntry::from(entry))?;
                let written = output.write_all(&line).and_then(|()| output.write_all(b"\n"));
                written.map_err(Failure::of_output)?;
            }
        }
    }
    output.flush().map_err(Failure::of_output)
}

async fn chain(store: &Store, organization: Option<String>) -> anyhow::Result<Chain> {
    let Some(name) = organization else {
        return Ok(Chain::Instance);
    };
    match store.organization(&name).await {
        Ok(organization) => Ok(Chain::Organization(organization.id)),
        Err(StoreError::NotFound(Object::Organization)) => {
            let id = name.parse().ok().map(OrganizationId).context(
                "no organization has this name; of a deleted one give the id, which the log of the instance has (--instance)",
            )?;
            let chain = Chain::Organization(id);
            if store.audit_following(chain, 0, 1).await?.is_empty() {
                bail!("no organization has, or had, this id");
            }
            Ok(chain)
        }
        Err(error) => Err(error.into()),
    }
}
