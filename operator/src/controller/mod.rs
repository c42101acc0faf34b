//! Brings Applications, Environments and SecretBindings to the api-server.

use crate::cli::ControllerArgs;

pub async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    anyhow::bail!("the controller for {} is being written", args.server_url)
}
