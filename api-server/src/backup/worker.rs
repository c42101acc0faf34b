//! The thread that makes archives and reads them. There is one, for as long as the server runs: the C library keeps memory for
//! each thread, and of SQLite and zstd each new one would keep megabytes more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Error;

type Job = Box<dyn FnOnce() + Send>;

/// It begins with the first job, and ends when this is dropped.
#[derive(Default)]
pub(super) struct Worker(Mutex<Option<Sender<Job>>>);

impl Worker {
    /// Does this there, behind what was asked for before. It is done to its end even if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.give(job)?;
        answer.await.map_err(|_| panicked())?
    }

    fn give(&self, job: Job) -> io::Result<()> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match &mut *jobs {
            Some(jobs) => jobs,
            none => none.insert(begin()?),
        };
        jobs.send(job).map_err(|_| panicked())
    }
}

fn begin() -> io::Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
        // It gets what others leave of the processors. Where it may not be so, it is as urgent as everything else.
        let thread = rustix::thread::gettid();
        rustix::process::setpriority_process(Some(thread), 19).ok();
        for job in jobs {
            // Who waits for it learns of it by getting no answer; the next one has a thread even so.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    })?;
    Ok(sender)
}

/// A look at the storage, which waits for no archive and keeps none waiting: on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (job, answer) = job(work);
    std::thread::Builder::new().name("backups".to_owned()).spawn(job)?;
    answer.await.map_err(|_| panicked())?
}

fn job<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, Error>>) {
    let (reply, answer) = oneshot::channel();
    let handle = Handle::current();
    let job = move || {
        let _entered = handle.enter();
        // Whoever asked may have gone.
        drop(reply.send(work()));
    };
    (Box::new(job), answer)
}

fn panicked() -> io::Error {
    io::Error::other("the thread of the backups panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_of_it_is_done_on_one_thread_which_outlives_a_panic() {
        let worker = Worker::default();
        let which = async || worker.run(|| Ok(std::thread::current().id())).await.unwrap();
        let first = which().await;
        let panics = || -> Result<(), Error> { panic!("as a fault of the program would") };
        let said = worker.run(panics).await.unwrap_err().to_string();
        assert!(said.contains("panicked"), "{said}");
        assert_eq!(which().await, first);
        assert_ne!(first, std::thread::current().id());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_done_to_its_end() {
        let (worker, (done, seen)) = (Worker::default(), channel());
        let asked = worker.run(move || {
            done.send(()).ok();
            Ok(())
        });
        // Given up at once.
        drop(futures::FutureExt::now_or_never(asked));
        worker.run(|| Ok(())).await.unwrap();
        assert_eq!(seen.try_recv(), Ok(()));
    }
}
