//! Programs that come as Python packages, each in a virtual environment of its own below the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::prerequisites;
use crate::process;
use crate::progress::Progress;

/// The path of `program`, of which people speak as `name`. Installs in `folder` what `requirements` pins, unless an
/// earlier run did.
pub fn install(
    name: &str,
    program: &str,
    requirements: &Path,
    folder: &Path,
    progress: &mut Progress,
) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let program = venv.join("bin").join(program);
    let wanted = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    // Written last, so that an environment which is not whole is made anew.
    let stamp = venv.join("installed.txt");
    // Not every program tells its version.
    let works = || {
        ["--version", "--help"]
            .iter()
            .any(|ask| process::succeeds(Command::new(&program).arg(ask)))
    };
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) && works() {
        return Ok(program);
    }
    progress.step(&format!("Installing {name}"), |_| {
        let python = prerequisites::find("python3").context("python3 was installed before")?;
        let log = folder.join("pip.log");
        let mut make = Command::new(python);
        process::run_logged(make.args(["-m", "venv", "--clear"]).arg(&venv), &log)?;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--no-input", "--disable-pip-version-check", "--requirement"]);
        process::run_logged(install.arg(requirements), &log)?;
        fs::write(&stamp, &wanted).with_context(|| format!("cannot write {}", stamp.display()))
    })?;
    Ok(program)
}
