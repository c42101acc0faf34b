//! The database of the bench, kept between runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::super::Options;
use crate::process;
use crate::progress::Step;

const SECRETS: usize = 10_000;
const MEMBERS: usize = 1_000;
/// At the least.
const VALUE_BYTES: usize = 0;

/// What is in it, and who may read it.
#[derive(Debug)]
pub struct Seed {
    pub folder: PathBuf,
    pub facts: Facts,
}

/// What `seed_org` prints.
#[derive(Debug, Deserialize)]
pub struct Facts {
    pub organization: String,
    pub project: String,
    pub environment: String,
    /// Of a session of the organization's owner.
    pub token: String,
    pub audit_rows: u64,
    pub secrets: u64,
    pub members: u64,
    /// Some of those that the audit log names, the busiest first.
    pub actors: Vec<String>,
    /// The second one is the busiest.
    pub resources: Vec<String>,
    /// Two times between which a hundredth of the entries was made.
    pub since: String,
    pub until: String,
}

impl Seed {
    /// That of an earlier run, if it has as many entries, or a new one.
    pub fn prepare((server, seeder): (&Path, &Path), directory: &Path, options: &Options, step: &Step) -> Result<Self> {
        let folder = directory.join("org");
        let seed = |facts| Self {
            folder: folder.clone(),
            facts,
        };
        let facts = folder.join("facts.json");
        if !options.reseed
            && let Ok(text) = fs::read_to_string(&facts)
            && let Ok(known) = serde_json::from_str::<Facts>(&text)
            && known.audit_rows == options.audit_rows as u64
        {
            return Ok(seed(known));
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)?;
        let key = process::capture(Command::new(server).args(["key", "generate"]))?;
        fs::write(folder.join("master.key"), key)?;
        step.follow(&format!("{} audit entries; minutes", options.audit_rows));
        let mut command = Command::new(seeder);
        command.args([folder.join("sealpod.db"), folder.join("master.key")]);
        command.args([options.audit_rows, SECRETS, MEMBERS, VALUE_BYTES].map(|number| number.to_string()));
        let text = process::capture(&mut command)?;
        let known = serde_json::from_str(&text).context("seed_org did not print what it made")?;
        fs::write(&facts, text)?;
        Ok(seed(known))
    }
}
