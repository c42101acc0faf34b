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
use super::{Bucket, StorageError};

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
        bucket: Bucket,
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
            Sink::Parts {
                upload,
                part,
                bucket,
                handle,
            } => {
                let last = std::mem::take(part);
                let completed = handle.block_on(async {
                    if !last.is_empty() {
                        upload.put_part(last.into()).await?;
                    }
                    upload.complete().await
                });
                completed.map_err(|cause| of_bucket(bucket, cause))?;
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

/// As [`in_folder_of`]. Without a place it would pass for damage of what was read.
fn of_bucket(bucket: &Bucket, cause: object_store::Error) -> io::Error {
    io::Error::other(bucket.failed(cause))
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
            Sink::Parts {
                upload,
                part,
                bucket,
                handle,
            } => {
                if part.len() == PART {
                    let full = std::mem::replace(part, Vec::with_capacity(PART));
                    let put = handle.block_on(upload.put_part(full.into()));
                    put.map_err(|cause| of_bucket(bucket, cause))?;
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
        bucket: Bucket,
        handle: Handle,
    },
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Pieces {
                stream,
                piece,
                bucket,
                handle,
            } => {
                while piece.is_empty() {
                    match handle.block_on(stream.next()) {
                        Some(next) => *piece = next.map_err(|cause| of_bucket(bucket, cause))?,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::Error;
    use super::super::super::content::unpacked;
    use super::*;

    #[test]
    fn a_connection_that_breaks_within_a_file_is_no_damage_of_it() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let bucket = Bucket {
            store: Arc::new(object_store::memory::InMemory::new()),
            prefix: object_store::path::Path::default(),
            place: "s3://bucket".to_owned(),
        };
        let broken = object_store::Error::Generic {
            store: "S3",
            source: "connection reset".into(),
        };
        let pieces = [Ok(Bytes::from_static(b"first")), Err(broken)];
        let download = Download::Pieces {
            stream: futures::stream::iter(pieces).boxed(),
            piece: Bytes::new(),
            bucket,
            handle: runtime.handle().clone(),
        };
        // As it comes through the readers above.
        let mut lines = io::BufReader::new(download);
        let error = unpacked(lines.read_to_end(&mut Vec::new()).unwrap_err());
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        let said = error.to_string();
        assert!(
            said.contains("s3://bucket") && said.contains("connection reset"),
            "{said}"
        );
    }
}
