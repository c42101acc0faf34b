//! Moto's server, which speaks S3.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::{Running, http};
use crate::process::Failure;
use crate::progress::Progress;
use crate::python;
use crate::workspace::Workspace;

const START_WITHIN: Duration = Duration::from_mins(1);
pub const BUCKET: &str = "vault";
/// In no answer and no message.
pub const SECRET: &str = "secret-of-the-storage-0123456789";

/// Installed, below the target folder.
pub struct Moto {
    program: PathBuf,
    folder: PathBuf,
}

impl Moto {
    pub fn install(workspace: &Workspace, progress: &mut Progress) -> Result<Self> {
        let folder = workspace.target.join("moto");
        fs::create_dir_all(&folder)?;
        let requirements = workspace.root.join("xtask/moto/requirements.txt");
        let program = python::install("Moto", "moto_server", &requirements, &folder, progress)?;
        Ok(Self { program, folder })
    }

    pub fn start(&self) -> Result<Storage> {
        let (_held, address) = http::free_address()?;
        let log = self.folder.join("server.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(&self.program);
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let command = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut running = Running::start(command)?;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if running.has_ended() || began.elapsed() > START_WITHIN {
                return Err(Failure::new("Moto does not start").log(&log).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Storage {
            address,
            _running: running,
        })
    }
}

/// It runs; killed when dropped.
pub struct Storage {
    address: SocketAddr,
    _running: Running,
}

impl Storage {
    /// What tells the api-server, and its commands, to keep backups there.
    pub fn settings(&self, prefix: &str) -> [(&'static str, String); 5] {
        [
            ("SEALPOD_BACKUP_URL", format!("s3://{BUCKET}/{prefix}")),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "somebody".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    pub fn make_bucket(&self) -> Result<()> {
        let status = self.ask("PUT", &format!("/{BUCKET}"), "")?;
        ensure!(status == "200", "Moto makes no bucket: {status}");
        Ok(())
    }

    /// The status of an answer, asked for without credentials.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).context("it answers in HTTP")?;
        Ok(status.to_owned())
    }
}
