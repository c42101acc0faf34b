//! The command line: each subcommand in a few lines, its exit code, and what it prints.

mod backup;
mod dev;
mod export;
mod maintain;
mod remote;
mod serve;
mod unseal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Faults, LogArgs, ServeArgs, StoreArgs};

/// Exit code where the configuration is at fault; clap's own for a wrong command line.
const BAD_CONFIGURATION: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "sealpod-api-server", version, about = "The Sealpod secrets server")]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve
    Serve(ServeArgs),
    /// Serve on this machine only, with generated keys, for trying out
    Dev(dev::DevArgs),
    /// Master keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Backups: made, listed, proved and restored on the files themselves, beside a running server or without one
    #[command(subcommand)]
    Backup(BackupCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Bring the database to this version's schema
    Migrate(StoreArgs),
    /// Check the configuration, the database, its key and the audit log, without serving
    Check(ServeArgs),
    /// Print the OpenAPI document
    Openapi,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print a new master key
    Generate,
    /// Have the running server read its key file and wrap everything under the first key; waits until that is done
    Rotate(remote::RemoteArgs),
    /// Show the ids of the master keys, what needs each of them, and which may be thrown away
    List(remote::RemoteArgs),
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Make a backup of the database, and open it again
    Create(backup::CreateArgs),
    /// List the backups in the storage, newest first
    List(backup::ListArgs),
    /// Open a backup, check the database in it, and change nothing
    Verify(backup::VerifyArgs),
    /// Make a database of a backup, and say how to switch to it
    Restore(backup::RestoreArgs),
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Walk every chain and name the first entry that is not as it was written
    Verify(unseal::VerifyArgs),
    /// Write a chain to standard output: one entry a line as JSON, oldest first
    Export(export::ExportArgs),
    /// Write what an archive of old entries holds to standard output, as JSON: a line that names the chain, by its organization's
    /// id, and then its entries, one a line, oldest first
    Unseal(unseal::UnsealArgs),
}

/// Why a command ended. What it prints is for the person who ran it.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 2.
    Configuration(Faults),
    /// Exit code 1.
    Run(anyhow::Error),
    /// Exit code 1 without a word: nobody reads the output any more, as behind `| head`.
    Unread,
}

impl Failure {
    /// Of writing to standard output.
    fn of_output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Run(anyhow::Error::new(error).context("standard output")),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    let outcome = match command {
        Command::Serve(args) => serve::serve(args, &log),
        Command::Dev(args) => dev::dev(&args, &log),
        Command::Key(KeyCommand::Generate) => maintain::generate_key(),
        Command::Key(KeyCommand::Rotate(args)) => remote::rotate_keys(args),
        Command::Key(KeyCommand::List(args)) => remote::list_keys(args),
        Command::Backup(BackupCommand::Create(args)) => backup::create_backup(args),
        Command::Backup(BackupCommand::List(args)) => backup::list_backups(args),
        Command::Backup(BackupCommand::Verify(args)) => backup::verify_backup(args),
        Command::Backup(BackupCommand::Restore(args)) => backup::restore_backup(args),
        Command::Audit(AuditCommand::Verify(args)) => unseal::verify_audit(args),
        Command::Audit(AuditCommand::Export(args)) => export::export(args),
        Command::Audit(AuditCommand::Unseal(args)) => unseal::unseal(args),
        Command::Migrate(args) => maintain::migrate(args),
        Command::Check(args) => maintain::check(args),
        Command::Openapi => maintain::openapi(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(faults)) => {
            eprintln!("sealpod-api-server: {faults}");
            ExitCode::from(BAD_CONFIGURATION)
        }
        Err(Failure::Unread) => ExitCode::FAILURE,
        Err(Failure::Run(error)) => {
            eprintln!("sealpod-api-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
