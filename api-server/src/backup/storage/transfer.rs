//! One file on its way to a storage, or from it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::MultipartUpload;
use tokio::runtime::Handle;

use super::super::restore::sync_folder;
use super::StorageError;

/// One part of an upload. S3 takes 10,000 of them: 78 GiB.
pub(super) const PART: usize = 8 * 1024 * 1024;

/// A file that is being written. One that is dropped before it is finished takes away what was written so far.
pub struct Upload(Option<Sink>);

pub(super) enum Sink {
    File {
        file: File,
        partial: PathBuf,
        path: PathBuf,
    },
    Parts {
        upload: Box<dyn MultipartUpload>,
        part: Vec<u8>,
        handle: Handle,
    },
}

impl Upload {
    pub(super) fn new(sink: Sink) -> Self {
        Self(Some(sink))
    }

    /// All of it is on the disk, or in the bucket, and has its name.
    pub fn finish(mut self) -> io::Result<()> {
        match self.sink() {
            Sink::File { file, partial, path } => {
                let named = || {
                    file.sync_all()?;
                    fs::rename(partial, &*path)?;
                    sync_folder(path)
                };
                named().map_err(|cause| in_folder_of(path, cause))?;
            }
            Sink::Parts { upload, part, handle } => {
                let last = std::mem::take(part);
                handle.block_on(async {
                    if !last.is_empty() {
                        upload.put_part(last.into()).await?;
                    }
                    upload.complete().await
                })?;
            }
        }
        self.0 = None;
        Ok(())
    }

    fn sink(&mut self) -> &mut Sink {
        self.0.as_mut().expect("only its end takes it")
    }
}

/// Names the place: the error travels through writers that know nothing of it.
fn in_folder_of(path: &Path, cause: io::Error) -> io::Error {
    let folder = path.parent().unwrap_or(path);
    io::Error::new(cause.kind(), StorageError::in_directory(folder, cause))
}

impl Drop for Upload {
    fn drop(&mut self) {
        match self.0.take() {
            None => {}
            Some(Sink::File { partial, .. }) => drop(fs::remove_file(partial)),
            Some(Sink::Parts { mut upload, handle, .. }) => drop(handle.block_on(upload.abort())),
        }
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.sink() {
            Sink::File { file, path, .. } => file.write(bytes).map_err(|cause| in_folder_of(path, cause)),
            Sink::Parts { upload, part, handle } => {
                if part.len() == PART {
                    let full = std::mem::replace(part, Vec::with_capacity(PART));
                    handle.block_on(upload.put_part(full.into()))?;
                }
                let taken = bytes.len().min(PART - part.len());
                part.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.sink() {
            Sink::File { file, .. } => file.flush(),
            Sink::Parts { .. } => Ok(()),
        }
    }
}

/// A file that is being read.
pub enum Download {
    File(io::BufReader<File>),
    Pieces {
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        piece: Bytes,
        handle: Handle,
    },
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Pieces { stream, piece, handle } => {
                while piece.is_empty() {
                    match handle.block_on(stream.next()) {
                        Some(next) => *piece = next?,
                        None => return Ok(0),
                    }
                }
                let count = buffer.len().min(piece.len());
                buffer[..count].copy_from_slice(&piece.split_to(count));
                Ok(count)
            }
        }
    }
}
