//! One file on its way to a storage, or from it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use object_store::{GetOptions, MultipartUpload, ObjectMeta, ObjectStore as _};
use tokio::runtime::Handle;

use super::super::restore::sync_folder;
use super::super::steady::Steady;
use super::{Bucket, StorageError};

/// One part of an upload. S3 takes 10,000 of them: 78 GiB.
const PART: usize = 8 * 1024 * 1024;
/// What is fetched of a file first, in bytes, and twice as much each time up to the most: often only its beginning is wanted.
const FIRST: u64 = 128 * 1024;
/// An answer is there twice while it is put together, so a part at once would take twice a part.
const MOST: u64 = 2 * 1024 * 1024;

/// A file that is being written. One that is dropped before it is finished takes away what was written so far.
pub struct Upload(Option<Sink>);

pub(super) enum Sink {
    File {
        file: Steady,
        partial: PathBuf,
        path: PathBuf,
    },
    Parts(Parts),
}

/// An upload in parts, the next of which is gathered.
pub(super) struct Parts {
    upload: Box<dyn MultipartUpload>,
    part: Vec<u8>,
    bucket: Bucket,
    handle: Handle,
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
                    file.finish()?;
                    fs::rename(partial, &*path)?;
                    sync_folder(path)
                };
                named().map_err(|cause| in_folder_of(path, cause))?;
            }
            Sink::Parts(parts) => parts.finish()?,
        }
        self.0 = None;
        Ok(())
    }

    fn sink(&mut self) -> &mut Sink {
        self.0.as_mut().expect("only its end takes it")
    }
}

impl Parts {
    pub(super) fn new(upload: Box<dyn MultipartUpload>, bucket: Bucket, handle: Handle) -> Self {
        Self {
            upload,
            part: Vec::with_capacity(PART),
            bucket,
            handle,
        }
    }

    fn put(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        let put = self.bucket.wait(&self.handle, self.upload.put_part(full.into()));
        put.map_err(|cause| of_bucket(&self.bucket, cause))
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.part.is_empty() {
            self.put()?;
        }
        // Also at the end of the server: it may be done behind whoever does not wait for it, and then nobody would take it away.
        let completed = self.handle.block_on(self.upload.complete());
        completed.map(drop).map_err(|cause| of_bucket(&self.bucket, cause))
    }

    fn abort(&mut self) {
        // What the storage keeps of it all the same, its own rules remove.
        drop(self.handle.block_on(self.upload.abort()));
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == PART {
            self.put()?;
        }
        let taken = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
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
            // To wait for the storage may be what panicked, as it does behind the end of the runtime: once more would be the end
            // of the process. The storage's own rules remove what it has.
            Some(Sink::Parts(_)) if std::thread::panicking() => {}
            Some(Sink::Parts(mut parts)) => parts.abort(),
        }
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.sink() {
            Sink::File { file, path, .. } => file.write(bytes).map_err(|cause| in_folder_of(path, cause)),
            Sink::Parts(parts) => parts.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.sink() {
            Sink::File { file, .. } => file.flush(),
            Sink::Parts(_) => Ok(()),
        }
    }
}

/// A file that is being read.
pub enum Download {
    File(io::BufReader<File>),
    Ranges(Ranges),
}

/// An object that is read one range after the other, so that no request takes long: one for all of it would take the longer
/// the larger the archive is, and where it broke off late there would be no other.
pub struct Ranges {
    fetch: Fetch,
    piece: Bytes,
    /// Behind what was fetched, of so many bytes.
    at: u64,
    size: u64,
    /// Length of the next one.
    next: u64,
}

type Fetch = Box<dyn FnMut(Range<u64>) -> io::Result<Bytes> + Send>;

impl Ranges {
    pub(super) fn of(bucket: Bucket, object: ObjectMeta, handle: Handle) -> Self {
        let size = object.size;
        let fetch = move |range: Range<u64>| {
            let options = GetOptions {
                range: Some(range.clone().into()),
                // Written anew meanwhile, it would be put together from two.
                if_match: object.e_tag.clone(),
                ..GetOptions::default()
            };
            let asked = range.end - range.start;
            let get = async { bucket.store.get_opts(&object.location, options).await?.bytes().await };
            let piece = bucket.wait(&handle, get).map_err(|cause| of_bucket(&bucket, cause))?;
            if piece.len() as u64 == asked {
                return Ok(piece);
            }
            let cause = object_store::Error::Generic {
                store: "S3",
                source: format!("{} bytes came, and {asked} were asked for", piece.len()).into(),
            };
            Err(of_bucket(&bucket, cause))
        };
        Self::new(size, Box::new(fetch))
    }

    fn new(size: u64, fetch: Fetch) -> Self {
        Self {
            fetch,
            piece: Bytes::new(),
            at: 0,
            size,
            next: FIRST,
        }
    }
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.at < self.size {
            let end = self.size.min(self.at + self.next);
            // What was read is not kept beside what comes.
            self.piece = Bytes::new();
            self.piece = (self.fetch)(self.at..end)?;
            (self.at, self.next) = (end, (self.next * 2).min(MOST));
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Ranges(ranges) => ranges.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::BoxFuture;
    use object_store::{PutPayload, PutResult, UploadPart};
    use tokio_util::sync::CancellationToken;

    use super::super::super::Error;
    use super::super::super::content::unpacked;
    use super::*;

    /// An upload that takes no part, because the thread that waits panics, and counts how often it is given up.
    #[derive(Debug)]
    struct Panicking(Arc<AtomicU32>);

    impl MultipartUpload for Panicking {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(async { panic!("as a timer does behind the end of its runtime") })
        }

        fn complete<'s, 'f>(&'s mut self) -> BoxFuture<'f, object_store::Result<PutResult>>
        where
            's: 'f,
            Self: 'f,
        {
            panic!("nothing was put")
        }

        fn abort<'s, 'f>(&'s mut self) -> BoxFuture<'f, object_store::Result<()>>
        where
            's: 'f,
            Self: 'f,
        {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("the same again, which ends the process where it is unwound already")
        }
    }

    #[test]
    fn a_panic_while_a_part_is_sent_is_no_end_of_the_process() {
        let (runtime, aborted) = (tokio::runtime::Runtime::new().unwrap(), Arc::default());
        let parts = Parts::new(
            Box::new(Panicking(Arc::clone(&aborted))),
            bucket(),
            runtime.handle().clone(),
        );
        let mut upload = Upload::new(Sink::Parts(parts));
        let sent = catch_unwind(AssertUnwindSafe(move || upload.write_all(&vec![0; PART + 1])));
        assert!(sent.is_err());
        assert_eq!(aborted.load(Ordering::Relaxed), 0);
    }

    /// An upload that is complete at once.
    #[derive(Debug)]
    struct Complete;

    impl MultipartUpload for Complete {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(async { Ok(()) })
        }

        fn complete<'s, 'f>(&'s mut self) -> BoxFuture<'f, object_store::Result<PutResult>>
        where
            's: 'f,
            Self: 'f,
        {
            let extensions = object_store::Extensions::default();
            Box::pin(async move {
                Ok(PutResult {
                    e_tag: None,
                    version: None,
                    extensions,
                })
            })
        }

        fn abort<'s, 'f>(&'s mut self) -> BoxFuture<'f, object_store::Result<()>>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Ok(()) })
        }
    }

    #[test]
    fn at_the_end_no_part_is_sent_any_more_and_what_makes_a_file_of_them_is_waited_for() {
        let (runtime, bucket) = (tokio::runtime::Runtime::new().unwrap(), bucket());
        bucket.end.cancel();
        let upload = || {
            let parts = Parts::new(Box::new(Complete), bucket.clone(), runtime.handle().clone());
            Upload::new(Sink::Parts(parts))
        };
        let mut sent = upload();
        sent.write_all(b"part").unwrap();
        let said = sent.finish().unwrap_err().to_string();
        assert!(said.contains("the server ends"), "{said}");
        upload().finish().unwrap();
    }

    fn bucket() -> Bucket {
        Bucket {
            store: Arc::new(object_store::memory::InMemory::new()),
            prefix: object_store::path::Path::default(),
            place: "s3://bucket".to_owned(),
            end: CancellationToken::new(),
        }
    }

    #[test]
    fn a_connection_that_breaks_within_a_file_is_no_damage_of_it() {
        let bucket = bucket();
        let fetch = move |range: Range<u64>| {
            let broken = object_store::Error::Generic {
                store: "S3",
                source: "connection reset".into(),
            };
            match range.start {
                0 => Ok(vec![0; usize::try_from(range.end).unwrap()].into()),
                _ => Err(of_bucket(&bucket, broken)),
            }
        };
        let download = Download::Ranges(Ranges::new(FIRST + 1, Box::new(fetch)));
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

    #[test]
    fn an_object_is_read_in_bounded_ranges_and_its_beginning_in_less() {
        let size = 40 * 1024 * 1024 + 1;
        let (asked, seen) = std::sync::mpsc::channel();
        let fetch = move |range: Range<u64>| {
            asked.send(range.clone()).unwrap();
            Ok(vec![7; usize::try_from(range.end - range.start).unwrap()].into())
        };
        let mut ranges = Ranges::new(size, Box::new(fetch));
        let read = io::copy(&mut ranges, &mut io::sink()).unwrap();
        let asked: Vec<_> = seen.try_iter().collect();
        assert_eq!((read, asked[0].clone()), (size, 0..FIRST));
        assert!(asked.iter().all(|range| range.end - range.start <= MOST), "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "{asked:?}");
        assert_eq!(asked.last().map(|range| range.end), Some(size));
    }
}
