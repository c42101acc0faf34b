//! The images of Sealpod and the two small ones that only the local cluster uses.
//!
//! No container engine and no registry is involved: each is a static binary packed as an OCI archive.

mod archive;
mod oci;
mod rootfs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

pub use self::archive::open;
use self::oci::{Image, Packed};
use self::rootfs::RootFs;
use crate::cluster::Cluster;
use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::{Progress, Step, table};
use crate::workspace::{Workspace, require_free_disk};

/// What holds a pod's network namespace; named in containerd's configuration.
pub const PAUSE_IMAGE: &str = "sealpod.dev/pause:local";
/// A shell and the usual tools, for the demo's app and for tests.
pub const APP_IMAGE: &str = "sealpod.dev/demo-app:local";
/// Registry part of the names that the images get here; nothing is ever pulled from it.
pub const REGISTRY: &str = "sealpod.dev";

/// The user of every image, and the group by which the sidecar's files are read.
const USER: u32 = 65532;
const FILES_GROUP: u32 = 64999;
const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Free disk for a release build of the whole workspace.
const BUILD_GIB: u64 = 4;

/// Binaries that become images of their names, each with its build profile.
const SERVICES: [(&str, &str); 3] = [
    ("sealpod-api-server", RELEASE),
    ("sealpod-operator", RELEASE),
    ("sealpod-sidecar", SIDECAR),
];
/// Build profiles, and so directories below the target's: the sidecar has one of its own, for its size.
const RELEASE: &str = "release";
const SIDECAR: &str = "sidecar";

/// The images of one build. All have the same tag, which changes whenever any of them does, so that a Deployment
/// that names them is rolled out exactly when it has to be.
#[derive(Debug)]
pub struct Images {
    pub tag: String,
    pub images: Vec<BuiltImage>,
}

#[derive(Debug)]
pub struct BuiltImage {
    /// `registry/name:tag`.
    pub reference: String,
    pub archive: PathBuf,
    /// Bytes of its files.
    pub unpacked: u64,
}

impl Images {
    /// Loads into the cluster those it does not have.
    pub fn load(&self, cluster: &Cluster) -> Result<()> {
        let missing = self.images.iter().filter(|image| !cluster.has_image(&image.reference));
        cluster.load_images(missing.map(|image| image.archive.as_path()))
    }

    /// Names and unpacked sizes.
    pub fn report(&self) -> String {
        let rows: Vec<_> = self
            .images
            .iter()
            .map(|image| (image.reference.clone(), megabytes(image.unpacked)))
            .collect();
        table(&rows)
    }
}

/// Builds the three static binaries and packs them into `output`.
pub fn build(workspace: &Workspace, output: &Path, progress: &mut Progress) -> Result<Images> {
    let binaries = progress.step("Building the static binaries", |step| {
        require_free_disk(&workspace.target, BUILD_GIB, "a release build")?;
        for profile in [RELEASE, SIDECAR] {
            compile(workspace, profile, step)?;
        }
        Ok(binaries(workspace))
    })?;
    progress.step("Packing the images", |_| pack_services(&binaries, output))
}

/// Builds the program of one image, and answers where it is.
pub fn program(workspace: &Workspace, service: &str, step: &Step) -> Result<PathBuf> {
    let (service, profile) = SERVICES
        .into_iter()
        .find(|(name, _)| *name == service)
        .with_context(|| format!("there is no image {service}"))?;
    compile(workspace, profile, step)?;
    Ok(binaries(workspace).join(profile).join(service))
}

/// The target has to be named: without one the flag would also reach procedural macros, which cannot be static.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Where the static binaries are, below directories of their profiles.
fn binaries(workspace: &Workspace) -> PathBuf {
    workspace.target.join(target())
}

/// All services of a profile at once: alone, one would have other features of the crates that they share, and so be
/// another program than the one in its image.
fn compile(workspace: &Workspace, profile: &str, step: &Step) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--profile", profile, "--target", &target()]);
    for (service, _) in SERVICES.iter().filter(|(_, of)| *of == profile) {
        command.args(["--package", service, "--bin", service]);
    }
    command
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let log = workspace.target.join(format!("images-build-{profile}.log"));
    process::run_followed(&mut command, &log, step)
}

fn pack_services(binaries: &Path, output: &Path) -> Result<Images> {
    let authorities = fs::read(CA_CERTIFICATES).map_err(|error| {
        Failure::new(format!(
            "cannot read {CA_CERTIFICATES}, which the images carry: {error}"
        ))
        .advice("install the package ca-certificates")
    })?;
    let mut packed = Vec::new();
    for (name, profile) in SERVICES {
        let file = binaries.join(profile).join(name);
        let binary = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if !prerequisites::is_static_elf(&binary) {
            return Err(Failure::new(format!(
                "{} is not statically linked, so it would not run in its image",
                file.display()
            ))
            .into());
        }
        packed.push((name, service_image(name, binary, authorities.clone()).pack()?));
    }
    let mut hash = Sha256::new();
    for (_, image) in &packed {
        hash.update(image.digest());
    }
    let tag = format!("local-{}", HEXLOWER.encode(&hash.finalize()[..6]));
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    let write = |(name, image): (&'static str, Packed)| -> Result<BuiltImage> {
        let reference = format!("{REGISTRY}/{name}:{tag}");
        let archive = output.join(format!("{name}.tar"));
        image.write(&reference, &archive)?;
        Ok(BuiltImage {
            reference,
            archive,
            unpacked: image.unpacked,
        })
    };
    let images = packed.into_iter().map(write).collect::<Result<_>>()?;
    Ok(Images { tag, images })
}

fn service_image(name: &str, binary: Vec<u8>, authorities: Vec<u8>) -> Image {
    let mut files = users();
    files.file(name, binary, 0o755);
    files.file("etc/ssl/certs/ca-certificates.crt", authorities, 0o644);
    let version = env!("CARGO_PKG_VERSION").to_string();
    let labels = [
        ("org.opencontainers.image.title", name.to_string()),
        ("org.opencontainers.image.version", version),
        (
            "org.opencontainers.image.licenses",
            env!("CARGO_PKG_LICENSE").to_string(),
        ),
    ];
    Image {
        files,
        entrypoint: vec![format!("/{name}")],
        user: format!("{USER}:{USER}"),
        labels: owned(labels),
    }
}

/// Archives of the pause and app images, packed once from a static busybox.
pub fn local(workspace: &Workspace, dir: &Path, progress: &mut Progress) -> Result<Vec<PathBuf>> {
    let busybox = prerequisites::static_busybox(workspace, progress)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let program = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let applets = process::capture(Command::new(&busybox).arg("--list"))?;
    let sleep = ["/bin/sleep", "2147483647"].map(String::from).to_vec();
    let wanted = [
        (PAUSE_IMAGE, "pause.tar", sleep),
        (APP_IMAGE, "demo-app.tar", vec!["/bin/sh".to_string()]),
    ];
    let write = |(reference, file, entrypoint): (&str, &str, Vec<String>)| -> Result<PathBuf> {
        let archive = dir.join(file);
        busybox_image(&program, &applets, entrypoint)
            .pack()?
            .write(reference, &archive)?;
        Ok(archive)
    };
    wanted.into_iter().map(write).collect()
}

fn busybox_image(program: &[u8], applets: &str, entrypoint: Vec<String>) -> Image {
    let mut files = users();
    files.file("bin/busybox", program.to_vec(), 0o755);
    for applet in applets.split_whitespace().filter(|applet| *applet != "busybox") {
        files.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    files.folder("tmp", 0o1777);
    Image {
        files,
        entrypoint,
        user: format!("{USER}:{USER}"),
        labels: BTreeMap::new(),
    }
}

fn users() -> RootFs {
    let mut files = RootFs::default();
    let passwd = format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n");
    let group = format!("root:x:0:\nnonroot:x:{USER}:\nsealpod:x:{FILES_GROUP}:\n");
    files.file("etc/passwd", passwd.into_bytes(), 0o644);
    files.file("etc/group", group.into_bytes(), 0o644);
    files
}

fn owned<const N: usize>(labels: [(&str, String); N]) -> BTreeMap<String, String> {
    labels
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_share_a_tag_that_follows_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let (binaries, output) = (dir.path().join("bin"), dir.path().join("out"));
        for profile in [RELEASE, SIDECAR] {
            fs::create_dir_all(binaries.join(profile)).unwrap();
        }
        // The smallest static ELF: a header without program headers.
        let mut elf = vec![0_u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for (name, profile) in SERVICES {
            fs::write(binaries.join(profile).join(name), &elf).unwrap();
        }
        let first = pack_services(&binaries, &output).unwrap();
        assert_eq!(
            pack_services(&binaries, &output).unwrap().tag,
            first.tag,
            "the same content, the same tag"
        );
        elf.push(1);
        fs::write(binaries.join(SIDECAR).join("sealpod-sidecar"), &elf).unwrap();
        let second = pack_services(&binaries, &output).unwrap();
        assert_ne!(second.tag, first.tag);
        assert!(
            second
                .images
                .iter()
                .all(|image| image.reference.ends_with(&second.tag) && image.archive.is_file())
        );
    }

    #[test]
    fn a_binary_that_needs_a_loader_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, profile) in SERVICES {
            fs::create_dir_all(dir.path().join(profile)).unwrap();
            fs::copy("/bin/sh", dir.path().join(profile).join(name)).unwrap();
        }
        let error = pack_services(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("not statically linked"), "{error}");
    }
}
