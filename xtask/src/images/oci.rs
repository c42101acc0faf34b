//! Writes an OCI image as one tar archive, which `docker load`, `skopeo`, `kind load` and `ctr images import` take.
//!
//! The same content always gives the same bytes: files are sorted, times are zero, JSON keys are in order.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use oci_spec::image::{
    ConfigBuilder, Descriptor, DescriptorBuilder, Digest as OciDigest, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, RootFsBuilder,
};
use sha2::{Digest, Sha256};

use super::rootfs::RootFs;

/// An image before it has a name.
#[derive(Debug)]
pub struct Image {
    pub files: RootFs,
    pub entrypoint: Vec<String>,
    /// Numeric `uid:gid`, so that the kubelet can check `runAsNonRoot`.
    pub user: String,
    pub labels: BTreeMap<String, String>,
}

/// An image as its blobs.
#[derive(Debug)]
pub struct Packed {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// Bytes of its files, which is what it takes on a node.
    pub unpacked: u64,
}

impl Image {
    pub fn pack(&self) -> Result<Packed> {
        let layer = self.files.to_tar()?;
        let labels: HashMap<_, _> = self.labels.clone().into_iter().collect();
        let config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(vec!["PATH=/bin".to_string()])
            .user(self.user.clone())
            .labels(labels)
            .build()?;
        let root = RootFsBuilder::default()
            .typ("layers")
            .diff_ids(vec![digest(&layer)])
            .build()?;
        let config = ImageConfigurationBuilder::default()
            .architecture(architecture())
            .os("linux")
            .config(config)
            .rootfs(root)
            .build()?;
        let config = json(&config)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &config)?)
            .layers(vec![descriptor(MediaType::ImageLayer, &layer)?])
            .build()?;
        Ok(Packed {
            manifest: json(&manifest)?,
            config,
            layer,
            unpacked: self.files.size(),
        })
    }
}

impl Packed {
    /// Changes with any byte of the image.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The archive that carries the image under `reference` (`registry/repository:tag`).
    pub fn archive(&self, reference: &str) -> Result<Vec<u8>> {
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let mut entry = descriptor(MediaType::ImageManifest, &self.manifest)?;
        entry.set_annotations(Some(HashMap::from([
            // containerd takes the whole name from the first, other tools the tag from the second.
            ("io.containerd.image.name".to_string(), reference.to_string()),
            ("org.opencontainers.image.ref.name".to_string(), tag.to_string()),
        ])));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![entry])
            .build()?;
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
        let mut archive = RootFs::default();
        archive.file("oci-layout", json(&layout)?, 0o644);
        archive.file("index.json", json(&index)?, 0o644);
        for blob in [&self.config, &self.layer, &self.manifest] {
            let (algorithm, hash) = digest(blob)
                .split_once(':')
                .map(|(a, h)| (a.to_string(), h.to_string()))
                .context("a digest has two parts")?;
            archive.file(&format!("blobs/{algorithm}/{hash}"), blob.clone(), 0o644);
        }
        archive.to_tar()
    }

    /// Writes the archive to `path`.
    pub fn write(&self, reference: &str, path: &Path) -> Result<()> {
        let archive = self.archive(reference)?;
        let new = path.with_extension("new");
        std::fs::write(&new, archive)
            .and_then(|()| std::fs::rename(&new, path))
            .with_context(|| format!("cannot write the image {}", path.display()))
    }
}

/// As Go and OCI name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}

fn descriptor(media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
    let digest: OciDigest = digest(bytes).parse().context("a sha256 digest is well formed")?;
    Ok(DescriptorBuilder::default()
        .media_type(media_type)
        .size(bytes.len() as u64)
        .digest(digest)
        .build()?)
}

/// JSON with its keys in order: the library keeps annotations and labels in hash maps, whose order changes.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let ordered: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                ordered.into_iter().collect()
            }
            serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    Ok(serde_json::to_vec(&sorted(serde_json::to_value(value)?))?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn image() -> Image {
        let mut files = RootFs::default();
        files.file("sealpod-sidecar", b"program".to_vec(), 0o755);
        files.file(
            "etc/passwd",
            b"nonroot:x:65532:65532::/:/sbin/nologin\n".to_vec(),
            0o644,
        );
        let labels = (0..8).map(|at| (format!("label-{at}"), at.to_string())).collect();
        Image {
            files,
            entrypoint: vec!["/sealpod-sidecar".into()],
            user: "65532:65532".into(),
            labels,
        }
    }

    fn contents(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        let archive = || image().pack().unwrap().archive("sealpod.dev/x:1").unwrap();
        let first = archive();
        for _ in 0..8 {
            assert!(archive() == first, "a hash map's order got into the archive");
        }
    }

    #[test]
    fn one_changed_byte_changes_the_digest() {
        let mut other = image();
        other.files.file("sealpod-sidecar", b"Program".to_vec(), 0o755);
        assert_ne!(other.pack().unwrap().digest(), image().pack().unwrap().digest());
    }

    #[test]
    fn an_archive_can_be_followed_from_its_index_to_its_files() {
        let packed = image().pack().unwrap();
        let archive = contents(&packed.archive("sealpod.dev/sealpod-sidecar:1").unwrap());
        let parsed = |name: &str| -> serde_json::Value { serde_json::from_slice(&archive[name]).unwrap() };
        let blob = |descriptor: &serde_json::Value| -> String {
            let name = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
            assert_eq!(descriptor["size"], archive[&name].len(), "the size is the blob's");
            assert!(
                name.ends_with(&HEXLOWER.encode(&Sha256::digest(&archive[&name]))),
                "the name is the blob's hash"
            );
            name
        };
        assert_eq!(parsed("oci-layout")["imageLayoutVersion"], "1.0.0");
        let entry = &parsed("index.json")["manifests"][0];
        assert_eq!(
            entry["annotations"]["io.containerd.image.name"],
            "sealpod.dev/sealpod-sidecar:1"
        );
        let manifest = parsed(&blob(entry));
        let config = parsed(&blob(&manifest["config"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"][0], "/sealpod-sidecar");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(
            config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
            "the layer is not compressed"
        );
        assert_eq!(contents(&archive[&layer])["sealpod-sidecar"], b"program");
        assert_eq!(packed.unpacked, 7 + 39);
    }
}
