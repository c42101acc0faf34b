//! The engine's threads: how they start, end, and fail.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread::JoinHandle;

use super::super::{OpenError, StoreError};
use super::health::{self, Health};
use super::job::WriteJob;
use super::queue::Queue;
use super::reader::ReadJob;

pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store had panicked");
        }
    }
}

/// A thread of the engine that died must not leave callers waiting for it.
pub(super) fn give_up(health: &Health, reads: &Queue<Box<dyn ReadJob>>, writes: &Queue<Box<dyn WriteJob>>) {
    health.note(&StoreError::Failed("a thread of the store panicked".into()));
    reads.close();
    writes.close();
    // What is dropped here answers its caller with an error.
    while reads.waiting().is_some() {}
    while writes.waiting().is_some() {}
}

/// Starts a thread; `on_panic` runs if it panics.
pub(super) fn spawn(
    path: &Path,
    name: String,
    run: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let database = path.to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(|| {
        health::work_on(database);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            on_panic();
            resume_unwind(panic);
        }
    });
    thread.map_err(|source| OpenError::Engine {
        path: path.to_owned(),
        what: "cannot start a thread",
        source: Box::new(source),
    })
}
