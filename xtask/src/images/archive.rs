//! Reads the archives of an earlier `cargo xtask images`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{BuiltImage, Images, REGISTRY, SERVICES};
use crate::process::Failure;

/// The images whose archives are in `dir`.
pub fn open(dir: &Path) -> Result<Images> {
    let images: Vec<_> = SERVICES
        .iter()
        .map(|(name, _)| image(dir, name))
        .collect::<Result<_>>()?;
    let tags: Vec<_> = images
        .iter()
        .filter_map(|image| image.reference.rsplit(':').next())
        .collect();
    let tag = tags[0].to_string();
    if tags.iter().any(|other| *other != tag) {
        return Err(Failure::new(format!(
            "the archives in {} are not of one build: {}",
            dir.display(),
            tags.join(", ")
        ))
        .advice(format!("make them anew: cargo xtask images --output {}", dir.display()))
        .into());
    }
    Ok(Images { tag, images })
}

fn image(dir: &Path, name: &str) -> Result<BuiltImage> {
    let archive = dir.join(format!("{name}.tar"));
    let read = read(&archive).with_context(|| format!("{} is no image archive", archive.display()));
    let (reference, unpacked) = read.map_err(|error| {
        Failure::new(format!("{error:#}")).advice(format!("make it: cargo xtask images --output {}", dir.display()))
    })?;
    if !reference.starts_with(&format!("{REGISTRY}/{name}:")) {
        return Err(Failure::new(format!(
            "{} holds {reference}, not {REGISTRY}/{name}",
            archive.display()
        ))
        .into());
    }
    Ok(BuiltImage {
        reference,
        archive,
        unpacked,
    })
}

/// The name of an archive's image, and the bytes of its files.
fn read(archive: &Path) -> Result<(String, u64)> {
    let index: Value = serde_json::from_slice(&file(archive, "index.json")?)?;
    let entry = &index["manifests"][0];
    let reference = entry["annotations"]["io.containerd.image.name"].as_str();
    let reference = reference.context("it does not say the image's name")?.to_string();
    let manifest: Value = serde_json::from_slice(&file(archive, &blob(entry)?)?)?;
    let mut unpacked = 0;
    for layer in manifest["layers"].as_array().context("its manifest has no layers")? {
        let layer = file(archive, &blob(layer)?)?;
        for entry in tar::Archive::new(layer.as_slice()).entries()? {
            unpacked += entry?.size();
        }
    }
    Ok((reference, unpacked))
}

/// Where the archive has what a descriptor describes.
fn blob(descriptor: &Value) -> Result<String> {
    let digest = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    Ok(format!("blobs/{}", digest.replace(':', "/")))
}

/// The content of one file of the archive.
fn file(archive: &Path, name: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    Err(Failure::new(format!("it has no {name}")).into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::oci::Image;
    use super::super::rootfs::RootFs;
    use super::*;

    fn write(dir: &Path, name: &str, tag: &str) {
        let mut files = RootFs::default();
        files.file(name, b"program".to_vec(), 0o755);
        let image = Image {
            files,
            entrypoint: vec![format!("/{name}")],
            user: "1:1".into(),
            labels: [].into(),
        };
        let packed = image.pack().unwrap();
        packed
            .write(&format!("{REGISTRY}/{name}:{tag}"), &dir.join(format!("{name}.tar")))
            .unwrap();
    }

    #[test]
    fn what_was_written_is_read_with_its_name_and_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, _) in SERVICES {
            write(dir.path(), name, "local-1");
        }
        let images = open(dir.path()).unwrap();
        assert_eq!(images.tag, "local-1");
        assert_eq!(images.images.len(), SERVICES.len());
        assert!(images.images.iter().all(|image| image.unpacked == 7), "{images:?}");
        write(dir.path(), SERVICES[1].0, "local-2");
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("not of one build") && error.contains("local-2"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_or_broken_archive_is_named_with_the_way_to_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("sealpod-api-server.tar") && error.contains("cargo xtask images"),
            "{error}"
        );
        fs::write(dir.path().join("sealpod-api-server.tar"), "no tar").unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is no image archive"), "{error}");
    }
}
