//! Backups in a bucket of Moto, which speaks S3 as Amazon's clients want it: in parts, with signatures that it checks, and with a
//! bucket that goes away.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::Running;
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::python;
use crate::workspace::Workspace;

const START_WITHIN: Duration = Duration::from_mins(1);
const BUCKET: &str = "vault";
/// In no answer and no message.
const SECRET: &str = "secret-of-the-storage-0123456789";
/// Nine values of a megabyte, which do not compress once they are sealed: two parts of an upload.
const SEED: [&str; 4] = ["0", "9", "1", "1000000"];

/// On the debug build of the api-server.
pub fn check(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let folder = workspace.target.join("moto");
    fs::create_dir_all(&folder)?;
    let requirements = workspace.root.join("xtask/moto/requirements.txt");
    let program = python::install("Moto", "moto_server", &requirements, &folder, progress)?;
    progress.step("Backups in a bucket", |_| {
        let mut build = workspace.cargo();
        build.args(["build", "--quiet", "--package", "sealpod-api-server"]);
        process::run_visible(build.args(["--bin", "sealpod-api-server", "--example", "seed_org"]))?;
        let data = tempfile::tempdir()?;
        let storage = Storage::start(&program, &folder)?;
        let debug = workspace.target.join("debug");
        let trial = Trial {
            program: debug.join("sealpod-api-server"),
            folder: data.path(),
            storage: &storage,
        };
        trial.seed(&debug.join("examples/seed_org"))?;
        trial.run()
    })
}

/// Moto's server; killed when dropped.
struct Storage {
    address: SocketAddr,
    _running: Running,
}

impl Storage {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = folder.join("server.log");
        let output = fs::File::create(&log)?;
        let mut command = Command::new(program);
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
        Ok(Self {
            address,
            _running: running,
        })
    }

    /// The status of an answer, asked for without credentials.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
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

struct Trial<'a> {
    program: std::path::PathBuf,
    folder: &'a Path,
    storage: &'a Storage,
}

impl Trial<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn seed(&self, seed: &Path) -> Result<()> {
        let key = process::capture(Command::new(&self.program).args(["key", "generate"]))?;
        fs::write(self.path("master.key"), key)?;
        let mut command = Command::new(seed);
        command
            .args([self.path("sealpod.db"), self.path("master.key")])
            .args(SEED);
        process::capture(&mut command).map(drop)
    }

    /// Whether the command succeeded, and what it said.
    fn command(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("SEALPOD_BACKUP_URL", format!("s3://{BUCKET}/some/prefix"))
            .env("SEALPOD_DATABASE_URL", format!("sqlite:{}", self.path("sealpod.db")))
            .env("SEALPOD_MASTER_KEY_FILE", self.path("master.key"))
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.storage.address))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "somebody")
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(
            !said.contains(SECRET),
            "the credential of the storage is in what `{arguments:?}` says"
        );
        Ok((output.status.success(), said))
    }

    fn run(&self) -> Result<()> {
        let succeeds = |arguments: &[&str]| -> Result<String> {
            let (ok, said) = self.command(arguments)?;
            ensure!(ok, "{arguments:?}: {said}");
            Ok(said)
        };
        let fails = |arguments: &[&str], why: &str| -> Result<()> {
            let (ok, said) = self.command(arguments)?;
            ensure!(
                !ok && said.contains(why) && said.contains(BUCKET),
                "{arguments:?}: {said}"
            );
            Ok(())
        };
        // 1. A bucket that is not there, then one that is.
        let create = ["backup", "create"];
        fails(&create, "NoSuchBucket")?;
        ensure!(
            self.storage.ask("PUT", &format!("/{BUCKET}"), "")? == "200",
            "Moto makes no bucket"
        );
        let made = succeeds(&create)?;
        let id = made.split(' ').next().unwrap_or_default();
        let listed = succeeds(&["backup", "list"])?;
        ensure!(listed.starts_with(id) && listed.lines().count() == 1, "{listed}");
        let verified = succeeds(&["backup", "verify", id, "--scratch", &self.path("")])?;
        ensure!(verified.contains("versions: 9"), "{verified}");
        succeeds(&["backup", "restore", id, "--to", &self.path("restored.db")])?;
        // 2. From here on Moto checks who asks, and knows nobody.
        ensure!(
            self.storage.ask("POST", "/moto-api/reset-auth", "0")? == "200",
            "Moto takes no order"
        );
        for arguments in [&["backup", "list"][..], &create] {
            fails(arguments, "InvalidAccessKeyId")?;
        }
        // 3. The bucket vanishes.
        ensure!(
            self.storage.ask("POST", "/moto-api/reset-auth", "inf")? == "200",
            "Moto takes no order"
        );
        ensure!(
            self.storage.ask("POST", "/moto-api/reset", "")? == "200",
            "Moto takes no order"
        );
        for arguments in [&["backup", "list"][..], &create] {
            fails(arguments, "NoSuchBucket")?;
        }
        let left: Vec<_> = fs::read_dir(self.folder)?.collect::<std::io::Result<_>>()?;
        let is_copy = |name: &std::ffi::OsStr| name.to_string_lossy().contains(".sealpod-scratch-");
        ensure!(
            !left.iter().any(|entry| is_copy(&entry.file_name())),
            "a copy was left behind: {left:?}"
        );
        Ok(())
    }
}
