//! An installation's first keys (being written).

use crate::cli::BootstrapArgs;

pub async fn run(args: BootstrapArgs) -> anyhow::Result<()> {
    anyhow::bail!("the bootstrap of {} is being written", args.namespace)
}
