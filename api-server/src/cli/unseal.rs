//! `audit verify|unseal`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use anyhow::bail;
use clap::Args;
use sealpod_core::wire::audit::AuditEntry;
use serde_json::json;

use super::Outcome;
use super::backup::{Which, storage, working};
use super::maintain::{print, report_audit, store_config};
use super::serve::block_on;
use crate::app::open_store;
use crate::audit::{AuditKey, Chain, GENESIS, Segment, check};
use crate::backup::{Asked, Part, Storage, Stored, exports, read_export};
use crate::config::{Faults, StorageArgs, StoreArgs};
use crate::crypto::Keyring;
use crate::store::{AuditReport, Store};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    storage: StorageArgs,
    /// Walk along the entries that were exported and dropped as well: reads all their archives
    #[arg(long)]
    exports: bool,
}

#[derive(Debug, Args)]
pub struct UnsealArgs {
    #[command(flatten)]
    which: Which,
}

/// The end of a chain: number and hash.
type End = (u64, [u8; 32]);

pub fn verify_audit(args: VerifyArgs) -> Outcome {
    let mut faults = Faults::default();
    let settings = args.storage.check(&mut faults);
    let settings = faults.finish(settings).map_err(super::Failure::Configuration)?;
    let config = store_config(args.store)?;
    let keyring = config.keyring.clone();
    block_on(async {
        let (store, _) = open_store(config).await?;
        let verified = verify(&store, keyring, settings.storage.filter(|_| args.exports), args.exports).await;
        store.close().await;
        verified
    })
}

async fn verify(store: &Store, keyring: Keyring, place: Option<Storage>, with_exports: bool) -> Outcome {
    report_audit(store).await?;
    if !with_exports {
        return Ok(());
    }
    let (place, key, report) = (storage(place)?, store.audit_key(), store.verify_audit().await?);
    tokio::task::spawn_blocking(move || verify_exports(&place, &keyring, &key, &report)).await?
}

/// From the first entry of each chain on, archive by archive. One that holds what an earlier one held too, such as behind a
/// restore, is as good as that.
fn verify_exports(place: &Storage, keyring: &Keyring, key: &AuditKey, report: &AuditReport) -> Outcome {
    let mut ends: BTreeMap<Chain, BTreeMap<u64, [u8; 32]>> = BTreeMap::new();
    for export in exports(place)? {
        let source = Stored {
            storage: place.clone(),
            name: export.filename.clone(),
        };
        let asked = Asked {
            id: Some(export.id),
            keyring: Some(keyring),
            identity: None,
        };
        let (mut end, mut broken): (End, _) = ((0, GENESIS), None);
        let mut heads = Vec::new();
        read_export(&source, &asked, |part| {
            match part {
                Part::Segment(segment) => {
                    end = (segment.first - 1, segment.previous);
                    heads.push((segment.chain, end, segment.last, segment.head));
                }
                Part::Entry(entry) => match check(key, end, &entry) {
                    Ok(hash) => end = (entry.seq, hash),
                    Err(found) => broken = broken.take().or(Some((entry.chain, found))),
                },
            }
            Ok(())
        })?;
        if let Some((chain, found)) = broken {
            bail_with(&format!("{}: of the chain of {chain}, {found}", export.filename))?;
        }
        for (chain, (before, previous), last, head) in heads {
            let known = ends.entry(chain).or_default();
            if before > 0 && known.get(&before) != Some(&previous) {
                bail_with(&format!(
                    "{}: the chain of {chain} does not go on behind entry {before}: an archive before it is missing",
                    export.filename
                ))?;
            }
            known.insert(last, head);
        }
        print(format_args!("{}: ok, {} entries", export.filename, export.entries))?;
    }
    for chain in report.chains.iter().filter(|chain| chain.cut > 0) {
        if ends.get(&chain.chain).and_then(|known| known.get(&chain.cut)).is_none() {
            bail_with(&format!(
                "the chain of {}: no archive has the entries up to {}",
                chain.chain, chain.cut
            ))?;
        }
    }
    Ok(())
}

fn bail_with(what: &str) -> anyhow::Result<()> {
    bail!("{what}")
}

pub fn unseal(args: UnsealArgs) -> Outcome {
    let opened = args.which.check()?;
    working(move || {
        let (source, id) = opened.source()?;
        let mut output = BufWriter::new(io::stdout());
        read_export(&source, &opened.asked(id), |part| {
            match part {
                Part::Segment(Segment { chain, first, last, .. }) => {
                    let line = json!({"chain": chain.id(), "first": first, "last": last});
                    serde_json::to_writer(&mut output, &line)
                }
                Part::Entry(entry) => serde_json::to_writer(&mut output, &AuditEntry::from(*entry)),
            }
            .map_err(io::Error::from)?;
            Ok(output.write_all(b"\n")?)
        })?;
        Ok(output.flush()?)
    })
}
