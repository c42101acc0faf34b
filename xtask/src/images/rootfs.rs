//! The files of an image.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tar::{EntryType, Header};

/// Files by their path without a leading slash; folders are made as needed.
#[derive(Debug, Default)]
pub struct RootFs {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Folder {
        mode: u32,
    },
    File {
        content: Vec<u8>,
        mode: u32,
    },
    /// A second name of another file of the same image.
    Link {
        target: String,
    },
}

impl RootFs {
    pub fn file(&mut self, path: &str, content: Vec<u8>, mode: u32) {
        self.folders_above(path);
        self.entries.insert(path.to_string(), Entry::File { content, mode });
    }

    /// An empty folder with a mode of its own.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.folders_above(path);
        self.entries.insert(path.to_string(), Entry::Folder { mode });
    }

    pub fn hard_link(&mut self, path: &str, target: &str) {
        self.folders_above(path);
        self.entries.insert(
            path.to_string(),
            Entry::Link {
                target: target.to_string(),
            },
        );
    }

    fn folders_above(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.entries
                .entry(path[..at].to_string())
                .or_insert(Entry::Folder { mode: 0o755 });
        }
    }

    /// Bytes in files; a linked one counts once.
    pub fn size(&self) -> u64 {
        let sizes = self.entries.values().map(|entry| match entry {
            Entry::File { content, .. } => content.len() as u64,
            Entry::Folder { .. } | Entry::Link { .. } => 0,
        });
        sizes.sum()
    }

    /// A tar archive: sorted, owned by root, all times zero.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        // Links last: they need what they link to, wherever it sorts.
        let (links, others): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .partition(|(_, entry)| matches!(entry, Entry::Link { .. }));
        for (path, entry) in others.into_iter().chain(links) {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let context = || format!("cannot pack {path}");
            match entry {
                Entry::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive
                        .append_data(&mut header, format!("{path}/"), std::io::empty())
                        .with_context(context)?;
                }
                Entry::File { content, mode } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    archive
                        .append_data(&mut header, path, content.as_slice())
                        .with_context(context)?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Link);
                    header.set_mode(0o755);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target).with_context(context)?;
                }
            }
        }
        archive
            .into_inner()
            .context("a tar archive in memory cannot fail to be closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_their_files_and_links_after_all() {
        let mut files = RootFs::default();
        files.hard_link("bin/a", "bin/busybox");
        files.file("bin/busybox", b"program".to_vec(), 0o755);
        files.folder("tmp", 0o1777);
        let bytes = files.to_tar().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
                    (0, 0, 0)
                );
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [
            ("bin/", 0o755),
            ("bin/busybox", 0o755),
            ("tmp/", 0o1777),
            ("bin/a", 0o755),
        ];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_string(), mode)));
        assert_eq!(files.size(), 7);
    }
}
