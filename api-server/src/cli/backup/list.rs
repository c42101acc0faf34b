//! `backup list`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use sealpod_core::wire::backups::Backup;
use uuid::Uuid;

use super::super::maintain::print;
use super::super::{Failure, Outcome};
use super::{storage, working};
use crate::backup::{database_name, list_with_epochs};
use crate::config::{Faults, StorageArgs};
use crate::store;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    storage: StorageArgs,
    /// Only those of this database: its file, or its name as the list has it, for where there is no file any more
    #[arg(long, value_name = "FILE|NAME")]
    of: Option<PathBuf>,
}

pub fn list_backups(args: ListArgs) -> Outcome {
    let mut faults = Faults::default();
    let settings = args.storage.check(&mut faults);
    let settings = faults.finish(settings).map_err(Failure::Configuration)?;
    working(move || {
        let all = list_with_epochs(&storage(settings.storage)?)?;
        let Some(of) = args.of else {
            return all.iter().try_for_each(show);
        };
        let name = match of.to_str().filter(|text| is_name(text)) {
            Some(name) => name.to_owned(),
            None => database_name(store::epoch_of(&of)?),
        };
        let unknown = all.iter().filter(|(_, epoch)| epoch.is_none()).count();
        let own: Vec<_> = all
            .into_iter()
            .filter(|(_, epoch)| epoch.map(database_name).as_ref() == Some(&name))
            .collect();
        if own.is_empty() {
            return Err(none_of(&name, unknown).into());
        }
        own.iter().try_for_each(show)
    })
}

/// A file may be called so, too, and is named by its path then.
fn is_name(text: &str) -> bool {
    text.len() == database_name(Uuid::nil()).len() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Nothing that a script could take for one. So many backups say nothing of their database.
fn none_of(name: &str, unknown: usize) -> anyhow::Error {
    let unknown = match unknown {
        0 => String::new(),
        count => format!(
            " ({count} of an earlier version, which do not say of which database they are, stand there as unknown)"
        ),
    };
    anyhow!(
        "there is no backup of database {name} here; `backup list` shows all that there are{unknown}. A database that was restored is \
         another one from then on, and what was made before stands under the name that it had"
    )
}

fn show((backup, epoch): &(Backup, Option<Uuid>)) -> Outcome {
    let database = epoch.map_or("unknown".to_owned(), database_name);
    print(format_args!(
        "{} {} {} bytes, {}, under master key {}, of database {database}",
        backup.id,
        backup.created_at,
        backup.size_bytes,
        backup.trigger.as_str(),
        backup.key_id
    ))
}
