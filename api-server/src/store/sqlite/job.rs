//! What waits for the writer: changes, and records of the audit log.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use super::super::{Result, StoreError};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry};

/// What of all that is remembered a job may make untrue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Everything,
    /// The secrets that it [touches](Tx::touch).
    Touched,
    /// It tells of a look, and changes nothing.
    Nothing,
}

pub(super) trait WriteJob: Send {
    fn reach(&self) -> Reach;
    /// Does the change and keeps the answer; an error is to roll it back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<()>;
    /// Answers; an error of the commit takes the place of a success.
    fn answer(self: Box<Self>, committed: &Result<()>);
}

pub(super) struct Change<T, F, N> {
    reach: Reach,
    work: Option<F>,
    /// What follows from it once it is committed.
    then: N,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F, N> Change<T, F, N> {
    pub(super) fn new(reach: Reach, (work, then): (F, N), reply: oneshot::Sender<Result<T>>) -> Self {
        Self {
            reach,
            work: Some(work),
            then,
            result: None,
            reply,
        }
    }
}

impl<T, F, N> WriteJob for Change<T, F, N>
where
    T: Send,
    F: FnOnce(&Tx<'_>) -> Result<T> + Send,
    N: FnOnce() + Send,
{
    fn reach(&self) -> Reach {
        self.reach
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = caught(|| {
            let done = work(tx)?;
            tx.afford()?;
            Ok(done)
        });
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: &Result<()>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) | (Err(_), Some(result @ Err(_))) => result,
            (Ok(()), None) => Err(StoreError::Internal("a change was not run".into())),
            (Err(error), _) => Err(error.clone()),
        };
        if result.is_ok() {
            (self.then)();
        }
        // Whoever asked may have gone; the change stands all the same.
        self.reply.send(result).ok();
    }
}

/// A panic is a defect of one use case: what it did is rolled back like that of any error, and the writer goes on.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(StoreError::Internal("a change panicked".into())))
}

/// An audit entry by itself, of a look or a refusal most often: what the server writes most.
pub(super) struct Record {
    reach: Reach,
    what: Option<(Chain, Entry, By)>,
    /// Why it is not there, although what else was in its transaction is.
    failed: Option<StoreError>,
    reply: oneshot::Sender<Result<()>>,
}

impl Record {
    pub(super) fn new(chain: Chain, entry: Entry, by: By, reply: oneshot::Sender<Result<()>>) -> Self {
        Self {
            reach: if entry.is_change() {
                Reach::Touched
            } else {
                Reach::Nothing
            },
            what: Some((chain, entry, by)),
            failed: None,
            reply,
        }
    }
}

impl WriteJob for Record {
    fn reach(&self) -> Reach {
        self.reach
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<()> {
        let Some((chain, entry, by)) = self.what.take() else {
            return Ok(());
        };
        // What it tells of has happened already, so the reserve is for it, whatever that was.
        let result = caught(|| tx.audit(chain, entry, &by));
        self.failed = result.clone().err();
        result
    }

    fn answer(self: Box<Self>, committed: &Result<()>) {
        let result = self.failed.map_or_else(|| committed.clone(), Err);
        self.reply.send(result).ok();
    }
}
