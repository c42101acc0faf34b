//! Backups in a bucket of Moto, which speaks S3 as Amazon's clients want it: in parts, with signatures that it checks, and with a
//! bucket that goes away.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::moto::{BUCKET, Moto, SECRET, Storage};
use crate::process;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Nine values of a megabyte, which do not compress once they are sealed: two parts of an upload.
const SEED: [&str; 4] = ["0", "9", "1", "1000000"];

/// On the debug build of the api-server.
pub fn check(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let moto = Moto::install(workspace, progress)?;
    progress.step("Backups in a bucket", |_| {
        let mut build = workspace.cargo();
        build.args(["build", "--quiet", "--package", "sealpod-api-server"]);
        process::run_visible(build.args(["--bin", "sealpod-api-server", "--example", "seed_org"]))?;
        let data = tempfile::tempdir()?;
        let storage = moto.start()?;
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
            .env("SEALPOD_DATABASE_URL", format!("sqlite:{}", self.path("sealpod.db")))
            .env("SEALPOD_MASTER_KEY_FILE", self.path("master.key"))
            .envs(self.storage.settings("some/prefix"))
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
        self.storage.make_bucket()?;
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
