//! `cargo xtask torture`: what the tests break for seconds, `cargo xtask test` among them, is broken here for minutes.

use anyhow::Result;

use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::{Progress, seconds, table};
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many times as often as the tests do each thing is broken
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    times: u16,
    /// Run only what has one of these words: kill, rotation, upgrade, error, backup, restore, full, clock
    words: Vec<String>,
}

/// The word for it, what it is, and the tests that do it, all of the api-server's `it`.
const BROKEN: [(&str, &str, &str); 8] = [
    (
        "kill",
        "Kills and power cuts under writers and readers, during backups and rotations",
        "crash::",
    ),
    (
        "rotation",
        "Kills at several points of a rotation of the master key",
        "rotation::",
    ),
    (
        "upgrade",
        "Kills and power cuts at the writes and syncs of an upgrade",
        "crash_upgrade::",
    ),
    ("error", "Errors of reads, writes and syncs", "io_errors::"),
    ("backup", "Errors of reads and writes under a backup", "backup_faults::"),
    (
        "restore",
        "Errors of writes and syncs under a restore",
        "restore_faults::",
    ),
    ("full", "Full disks", "full_disk::"),
    ("clock", "A clock that jumps, or stands still", "wall_clock::"),
];

pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let mut progress = Progress::plain();
    let unknown = |word: &&String| !BROKEN.iter().any(|(known, ..)| known == word);
    if let Some(word) = options.words.iter().find(unknown) {
        let words = BROKEN.map(|(word, ..)| word).join(", ");
        return Err(Failure::new(format!("`{word}` is nothing that is broken here"))
            .advice(format!("name one of {words}, or none for all"))
            .into());
    }
    prerequisites::ensure_test_tools(workspace, &mut progress)?;
    let asked = |word: &str| options.words.is_empty() || options.words.iter().any(|asked| asked == word);
    for (_, title, tests) in BROKEN.into_iter().filter(|(word, ..)| asked(word)) {
        progress.step(title, |_| {
            let mut command = workspace.cargo();
            command.args(["test", "--package", "sealpod-api-server", "--test", "it", "--", tests]);
            command.env("SEALPOD_TORTURE", options.times.to_string());
            process::run_visible(&mut command)
        })?;
    }
    let times = progress.times().iter();
    let rows: Vec<_> = times.map(|(title, took)| (title.clone(), seconds(*took))).collect();
    eprint!("\n{}", table(&rows));
    Ok(())
}
