//! `bao agent` with one template, told to ask each second: at its default of five minutes there is nothing to compare.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;
use tokio::runtime::Runtime;

use super::super::cgroup::Group;
use super::super::child::{self, Running as Process};
use super::super::peer::openbao::{Bao, OpenBao};
use super::pods::{self, Running};
use super::value;

const SECRET: &str = "sidecar";

#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    openbao: OpenBao,
    bao: Bao,
}

impl Agent {
    /// Of an OpenBao that is prepared, which runs from here on.
    pub fn new(program: PathBuf, openbao: OpenBao, runtime: &Runtime) -> Result<Self> {
        let bao = openbao.start(runtime)?;
        Ok(Self { program, openbao, bao })
    }

    pub fn set(&self, runtime: &Runtime, number: usize) -> Result<()> {
        runtime.block_on(self.openbao.set(&self.bao, SECRET, &value(number)))
    }

    /// One more agent; in `group`.
    pub fn start(&self, group: Option<Group>) -> Result<Running> {
        let directory = pods::directory()?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("token"), &self.openbao.token)?;
        fs::write(path("agent.hcl"), self.configuration(directory.path()))?;
        let mut command = group
            .as_ref()
            .map_or_else(|| child::command(&self.program), |group| group.command(&self.program));
        command
            .arg("agent")
            .arg(format!("-config={}", path("agent.hcl").display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let file = path("secret");
        Ok(Running::new(Process::start(&mut command)?, vec![file], directory).in_group(group))
    }

    fn configuration(&self, directory: &std::path::Path) -> String {
        let (address, directory) = (self.bao.address, directory.display());
        format!(
            r#"vault {{
  address = "http://{address}"
}}
auto_auth {{
  method "token_file" {{
    config = {{ token_file_path = "{directory}/token" }}
  }}
}}
template_config {{
  static_secret_render_interval = "1s"
}}
template {{
  contents = "{{{{ with secret \"kv/data/{SECRET}\" }}}}{{{{ .Data.data.value }}}}{{{{ end }}}}"
  destination = "{directory}/secret"
}}
"#
        )
    }
}
