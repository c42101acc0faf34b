//! `audit verify|unseal`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};

use anyhow::anyhow;
use clap::Args;
use sealpod_core::wire::audit::AuditEntry;
use serde_json::json;

use super::backup::{Which, storage, working};
use super::maintain::{print, report_audit, store_config};
use super::serve::block_on;
use super::{Failure, Outcome};
use crate::app::open_store;
use crate::audit::{AuditKey, Chain, End, GENESIS, Segment};
use crate::backup::{Asked, Error, Export, Part, Storage, Stored, exports, read_export, segments};
use crate::config::{Faults, StorageArgs, StoreArgs};
use crate::crypto::Keyring;
use crate::store::{Admit, AuditReport, ChainReport, Store};

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

pub fn verify_audit(args: VerifyArgs) -> Outcome {
    let mut faults = Faults::default();
    let settings = args.storage.check(&mut faults);
    let settings = faults.finish(settings).map_err(Failure::Configuration)?;
    let config = store_config(args.store, Admit::Current)?;
    let keyring = config.keyring.clone();
    block_on(async {
        let (store, _) = open_store(config).await?;
        let verified = verify(&store, keyring, settings.storage.filter(|_| args.exports), args.exports).await;
        store.close().await;
        verified
    })
}

async fn verify(store: &Store, keyring: Keyring, place: Option<Storage>, with_exports: bool) -> Outcome {
    let report = report_audit(store).await?;
    if !with_exports {
        return Ok(());
    }
    let (place, key) = (storage(place)?, store.audit_key());
    tokio::task::spawn_blocking(move || verify_exports(&place, &keyring, &key, &report)).await?
}

/// Every archive, entry by entry, and that they follow each other up to where the database begins. Several may hold the same
/// entries, such as behind a restore. What links them is numbers and hashes, never their times: a clock is set back.
fn verify_exports(place: &Storage, keyring: &Keyring, key: &AuditKey, report: &AuditReport) -> Outcome {
    let mut all = Vec::new();
    for export in exports(place)? {
        let found = read(place, keyring, key, &export).map_err(|error| anyhow!("{}: {error}", export.filename))?;
        all.extend(found.into_iter().map(|segment| (segment, export.filename.clone())));
        print(format_args!("{}: ok, {} entries", export.filename, export.entries))?;
    }
    if let Some(missing) = missing(&all, report) {
        return Err(anyhow!(missing).into());
    }
    Ok(())
}

fn read(place: &Storage, keyring: &Keyring, key: &AuditKey, export: &Export) -> Result<Vec<Segment>, Error> {
    let source = Stored {
        storage: place.clone(),
        name: export.filename.clone(),
    };
    let asked = Asked {
        id: Some(export.id),
        keyring: Some(keyring),
        identity: None,
    };
    segments(&source, &asked, key)
}

/// What stands between the first entries of the chains and the ones that the database has.
fn missing(segments: &[(Segment, String)], report: &AuditReport) -> Option<String> {
    let mut ends: BTreeMap<Chain, BTreeSet<End>> = BTreeMap::new();
    for (segment, _) in segments {
        let ends = ends
            .entry(segment.chain)
            .or_insert_with(|| BTreeSet::from([(0, GENESIS)]));
        ends.insert((segment.last, segment.head));
    }
    let has = |chain: Chain, end: End| ends.get(&chain).is_some_and(|ends| ends.contains(&end));
    for (segment, file) in segments {
        let (chain, begin) = (segment.chain, segment.begin());
        if !has(chain, begin) {
            return Some(format!(
                "{file}: the chain of {chain} does not go on behind entry {}: an archive before it is missing",
                begin.0
            ));
        }
    }
    let is_there = |chain: &&ChainReport| chain.cut == 0 || has(chain.chain, (chain.cut, chain.cut_head));
    let chain = report.chains.iter().find(|chain| !is_there(chain))?;
    Some(format!(
        "the chain of {}: no archive has the entries up to {} that the database's go on behind",
        chain.chain, chain.cut
    ))
}

pub fn unseal(args: UnsealArgs) -> Outcome {
    let opened = args.which.check()?;
    working(move || {
        let (source, id) = opened.source()?;
        let mut output = BufWriter::new(io::stdout());
        let mut unwritten = None;
        let read = read_export(&source, &opened.asked(id), |part| {
            // What is told here only ends the reading: why it ended is kept apart from what is wrong with the archive.
            write_part(&mut output, part).map_err(|error| Error::Io(unwritten.insert(error).kind().into()))
        });
        if let Some(error) = unwritten {
            return Err(Failure::of_output(error));
        }
        read?;
        output.flush().map_err(Failure::of_output)
    })
}

fn write_part(output: &mut impl Write, part: Part) -> io::Result<()> {
    match part {
        Part::Segment(Segment { chain, first, last, .. }) => {
            let line = json!({"chain": chain.id(), "first": first, "last": last});
            serde_json::to_writer(&mut *output, &line)?;
        }
        Part::Entry(entry) => serde_json::to_writer(&mut *output, &AuditEntry::from(*entry))?,
    }
    output.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u64, previous: u8, last: u64, head: u8) -> (Segment, String) {
        let hash = |n: u8| if n == 0 { GENESIS } else { [n; 32] };
        let segment = Segment {
            chain: Chain::Instance,
            first,
            last,
            previous: hash(previous),
            head: hash(head),
        };
        (segment, format!("{first}-{last}"))
    }

    fn report(cut: u64, head: u8) -> AuditReport {
        let chain = ChainReport {
            chain: Chain::Instance,
            cut,
            cut_head: [head; 32],
            entries: 1,
            head: [99; 32],
            broken: None,
        };
        AuditReport { chains: vec![chain] }
    }

    #[test]
    fn archives_are_linked_by_numbers_and_hashes_in_whatever_order() {
        let (one, two) = (segment(1, 0, 40, 4), segment(41, 4, 60, 6));
        assert_eq!(missing(&[one.clone(), two.clone()], &report(60, 6)), None);
        assert_eq!(missing(&[two.clone(), one.clone()], &report(60, 6)), None);
        let said = missing(std::slice::from_ref(&two), &report(60, 6)).unwrap();
        assert!(said.contains("41-60") && said.contains("behind entry 40"), "{said}");
        // A restored database went another way behind entry 40: both are kept, and its own has to be there.
        let other = segment(41, 4, 60, 7);
        let all = [one.clone(), two.clone(), other.clone()];
        assert_eq!(
            (missing(&all, &report(60, 6)), missing(&all, &report(60, 7))),
            (None, None)
        );
        let said = missing(&[one, other], &report(60, 6)).unwrap();
        assert!(said.contains("no archive has the entries up to 60"), "{said}");
        // Behind another entry than the one that has this number.
        let foreign = segment(1, 9, 40, 4);
        assert!(missing(&[foreign], &report(40, 4)).is_some());
    }
}
