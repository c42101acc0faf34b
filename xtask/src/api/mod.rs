//! The api-server called as its description says: by Schemathesis as every kind of caller, and by a person on `/docs`;
//! and its backups in a bucket.

mod browser;
mod bucket;
mod page;
mod reach;
mod schemathesis;
mod server;

use anyhow::Result;

use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;
use schemathesis::{Environment, Outcome};
use server::Caller;

/// Runs both, on the debug build of the api-server.
pub fn run(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    prerequisites::ensure_api_tools(workspace, progress)?;
    let environment = Environment::prepare(workspace, progress)?;
    progress.step("The api-server's debug build", |_| {
        process::run_visible(
            workspace
                .cargo()
                .args(["build", "--quiet", "--package", "sealpod-api-server"]),
        )
    })?;
    bucket::check(workspace, progress)?;
    progress.step("The page /docs in a browser", |_| page::check(workspace))?;
    progress.step("Schemathesis, as every kind of caller", |step| {
        let outcomes = all_callers(&environment, workspace)?;
        for outcome in &outcomes {
            step.note(&outcome.summary());
        }
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
        for outcome in &failed {
            eprintln!("{}", outcome.failures());
        }
        if failed.is_empty() {
            return reach::require(&outcomes);
        }
        let names: Vec<_> = failed.iter().map(|outcome| outcome.caller.name()).collect();
        Err(Failure::new(format!(
            "the api-server and its description differ, called as {}: see above, and the logs in {}",
            names.join(", "),
            workspace.short(&environment.folder)
        ))
        .advice("mend the schema or the server; what no schema can say is excluded, with its reason, in xtask/schemathesis/schemathesis.toml")
        .into())
    })
}

/// Each has a server and data of its own: what one deletes, no other misses. The one with the most to do runs beside
/// the others.
fn all_callers(environment: &Environment, workspace: &Workspace) -> Result<Vec<Outcome>> {
    let run = |caller| schemathesis::run(environment, workspace, caller);
    std::thread::scope(|scope| {
        let most = scope.spawn(move || run(Caller::Admin));
        let others = [Caller::Session, Caller::Account, Caller::Application, Caller::Nobody];
        let others: Result<Vec<_>> = others.into_iter().map(run).collect();
        let most = most.join().map_err(|_| Failure::new("a thread panicked; see above"))?;
        let mut outcomes = vec![most?];
        outcomes.extend(others?);
        Ok(outcomes)
    })
}
