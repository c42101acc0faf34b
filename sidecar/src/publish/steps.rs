//! The steps of [`Publisher::publish`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use sealpod_core::paths::FilePath;

use super::{
    Content, DATA, DATA_TEMPORARY, DIRECTORY_MODE, File, FileSet, Former, LINK_TEMPORARY, PublishError, Publisher,
    Step, below_data, is_generation, tree,
};

impl Publisher {
    /// Step 2, its first half: turns what is kept into files to write; gives those that are not there.
    pub(super) fn carry_over(&self, set: &mut FileSet, former: Option<&str>) -> Result<Vec<FilePath>, PublishError> {
        let mut lost = Vec::new();
        let generation = match former {
            Some(name) => Some(tree::open_directory(&self.root, name).map_err(self.failed("open", name))?),
            None => None,
        };
        for kept in std::mem::take(&mut set.keep) {
            let read = generation
                .as_ref()
                .map(|from| tree::read(from, kept.path.as_str(), self.usable()));
            match read {
                Some(Ok((_, content))) => set.write.push(File {
                    path: kept.path,
                    mode: kept.mode,
                    content: Content(content),
                }),
                // Another kind of thing under that name is no last good file either.
                None | Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::INVAL | Errno::LOOP)) => {
                    lost.push(kept.path);
                }
                Some(Err(cause)) => return Err(self.failed("read", kept.path.as_str())(cause)),
            }
        }
        Ok(lost)
    }

    /// Step 2, its second half.
    pub(super) fn shows(&self, set: &FileSet, former: Option<&str>) -> Result<bool, PublishError> {
        let Some(name) = former else { return Ok(false) };
        let failed = self.failed("read", name);
        let generation = tree::open_directory(&self.root, name).map_err(&failed)?;
        let (mut there, _) = tree::files(&generation).map_err(&failed)?;
        there.sort_unstable();
        let mut wanted: Vec<_> = set.write.iter().map(|file| file.path.as_str()).collect();
        wanted.sort_unstable();
        if there != wanted {
            return Ok(false);
        }
        for file in &set.write {
            match tree::read(&generation, file.path.as_str(), self.usable()) {
                Ok((mode, content)) if mode == file.mode && content == file.content.0 => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Steps 3 to 6.
    pub(super) fn swap(&mut self, set: &FileSet) -> Result<(), PublishError> {
        self.reach(Step::Make);
        let name = self.make_generation()?;
        let written = self.fill(&name, set);
        if let Err(error) = written {
            // Left for the next process where even this fails: its name tells what it is.
            let _ = tree::remove(&self.root, &name);
            return Err(error);
        }
        self.reach(Step::Swap);
        tree::link(&self.root, &name, DATA, DATA_TEMPORARY).map_err(self.failed("swap", DATA))
    }

    fn make_generation(&self) -> Result<String, PublishError> {
        loop {
            let name = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
            match rustix::fs::mkdirat(&self.root, name.as_str(), Mode::RWXU) {
                Ok(()) => return Ok(name),
                // A clock that stands still or went back: the next reading is another name.
                Err(Errno::EXIST) => std::thread::sleep(Duration::from_micros(10)),
                Err(cause) => return Err(self.failed("make", &name)(cause)),
            }
        }
    }

    fn fill(&self, name: &str, set: &FileSet) -> Result<(), PublishError> {
        let generation = tree::open_directory(&self.root, name).map_err(self.failed("open", name))?;
        for (index, file) in set.write.iter().enumerate() {
            if index == set.write.len() / 2 {
                self.reach(Step::Write);
            }
            let path = file.path.as_str();
            tree::create(&generation, path, file.mode, &file.content.0).map_err(self.failed("write", path))?;
        }
        self.reach(Step::OpenUp);
        tree::open_up(&generation, DIRECTORY_MODE).map_err(self.failed("open up", name))
    }

    /// Steps 7 and 8.
    pub(super) fn link_names(&self, set: &FileSet) -> Result<(), PublishError> {
        self.reach(Step::Link);
        let names: BTreeSet<_> = set.write.iter().map(|file| file.path.top()).collect();
        for name in &names {
            let target = below_data(name);
            let there = tree::link_target(&self.root, name).map_err(self.failed("read", name))?;
            if there.as_deref() != Some(target.as_str()) {
                tree::link(&self.root, &target, name, LINK_TEMPORARY).map_err(self.failed("link", name))?;
            }
        }
        self.reach(Step::Unlink);
        for entry in tree::entries(&self.root).map_err(self.failed("list", ""))? {
            let ours = entry.kind == FileType::Symlink && !entry.name.starts_with("..");
            let stale = matches!(entry.name.as_str(), DATA_TEMPORARY | LINK_TEMPORARY);
            if stale || (ours && !names.contains(entry.name.as_str())) {
                tree::unlink(&self.root, &entry.name).map_err(self.failed("remove", &entry.name))?;
            }
        }
        Ok(())
    }

    /// Step 9.
    pub(super) fn retire(&mut self, name: String) -> Result<(), PublishError> {
        let size = self.size_of(&name)?;
        self.former.push(Former {
            name,
            size,
            until: Instant::now() + self.grace,
        });
        Ok(())
    }

    /// What a killed process left behind: readers may be using one of these generations, nobody knows which.
    pub(super) fn adopt_leftovers(&mut self) -> Result<(), PublishError> {
        let current = self.current()?;
        for entry in tree::entries(&self.root).map_err(self.failed("list", ""))? {
            let left = entry.kind == FileType::Directory && is_generation(&entry.name);
            if left && current.as_ref() != Some(&entry.name) {
                self.retire(entry.name)?;
            }
        }
        Ok(())
    }
}
