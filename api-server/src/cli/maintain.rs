//! The commands that do not serve.

use std::io::{self, Write};

use anyhow::anyhow;

use super::serve::block_on;
use super::{Failure, Outcome};
use crate::app::open_store;
use crate::config::{Config, Environment, Faults, ServeArgs, StoreArgs, StoreConfig};
use crate::crypto::generate_master_key;
use crate::routes;
use crate::store::{Admit, AuditReport, Store};

pub fn generate_key() -> Outcome {
    print(format_args!("{}", generate_master_key().expose()))
}

pub fn openapi() -> Outcome {
    print(format_args!("{:#}", routes::document()))
}

pub fn migrate(args: StoreArgs) -> Outcome {
    let config = store_config(args, Admit::Older)?;
    let path = config.options.path.display().to_string();
    block_on(async {
        let (store, _) = open_store(config).await?;
        store.close().await;
        print(format_args!("{path} has the schema of this version"))
    })
}

pub fn check(args: ServeArgs) -> Outcome {
    let mut faults = Faults::default();
    let environment = Environment::of_process();
    environment.check(&mut faults);
    let config = Config::check(args, &environment, &mut faults);
    let mut config = faults.finish(config).map_err(Failure::Configuration)?;
    print(format_args!("configuration: ok"))?;
    config.store.options.admit = Admit::Current;
    let path = config.store.options.path.display().to_string();
    block_on(async {
        let (store, _) = open_store(config.store).await?;
        print(format_args!("database {path}: ok, and the master key opens it"))?;
        let verified = report_audit(&store).await;
        store.close().await;
        verified.map(drop)
    })
}

/// Of a database that is there, and of which nobody else makes use.
pub fn store_config(args: StoreArgs, admit: Admit) -> Result<StoreConfig, Failure> {
    let mut faults = Faults::default();
    let config = StoreConfig::check(args, &Environment::of_process(), &mut faults);
    let mut config = faults.finish(config).map_err(Failure::Configuration)?;
    // Nobody else uses the file, so a walk along all of it may take its time.
    config.options.read_time = None;
    config.options.admit = admit;
    Ok(config)
}

/// Walks along the whole log and prints what it finds of each chain; an error unless all are as they were written.
pub async fn report_audit(store: &Store) -> Result<AuditReport, Failure> {
    let report = store.verify_audit().await?;
    for chain in &report.chains {
        let (name, entries) = (chain.chain, chain.entries);
        let behind = match chain.cut {
            0 => String::new(),
            cut => format!(" behind {cut} that were exported"),
        };
        match &chain.broken {
            None => print(format_args!(
                "audit chain of {name}: ok, {entries} entries{behind}, head {}",
                hex(&chain.head)
            ))?,
            Some(broken) => print(format_args!(
                "audit chain of {name}: {broken}, behind {entries} good entries{behind}"
            ))?,
        }
    }
    if !report.is_intact() {
        let what = anyhow!("the audit log is not as it was written; keep this file, and compare it with a backup");
        return Err(what.into());
    }
    Ok(report)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub fn print(line: std::fmt::Arguments<'_>) -> Outcome {
    writeln!(io::stdout(), "{line}").map_err(Failure::of_output)
}
