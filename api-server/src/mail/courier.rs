use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealpod_core::Time;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{CAPACITY, Fate, LoginMail, Transport};
use crate::app::Metrics;
use crate::crypto::random;
use crate::mail::smtp::Failure;

/// Mails that are sent at a time.
const IN_FLIGHT: usize = 4;
/// How long mails that are being sent may go on when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// How often connections that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(10);

/// How patient the courier is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One try, from the connection to the mail server's last word.
    pub attempt: Duration,
    /// Before the second try; doubled for each one after, up to `longest`.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(30),
            first: Duration::from_secs(1),
            longest: Duration::from_mins(1),
        }
    }
}

/// Empties the outbox.
#[derive(Debug)]
pub struct Courier {
    transport: Arc<Transport>,
    pace: Pace,
    posted: mpsc::Receiver<LoginMail>,
    /// What is to be sent, or sent again, by when; the number tells apart what is due at one instant.
    due: BTreeMap<(Instant, u64), Job>,
    posted_so_far: u64,
    metrics: Metrics,
}

#[derive(Debug)]
struct Job {
    mail: LoginMail,
    tries: u32,
    /// When its code dies.
    end: Instant,
}

type Sent = (Job, Result<(), Failure>);

impl Courier {
    pub(super) fn new(transport: Transport, pace: Pace, posted: mpsc::Receiver<LoginMail>, metrics: Metrics) -> Self {
        Self {
            transport: Arc::new(transport),
            pace,
            posted,
            due: BTreeMap::new(),
            posted_so_far: 0,
            metrics,
        }
    }

    /// Sends until `stop`, then finishes what it is at.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut flying: JoinSet<Sent> = JoinSet::new();
        let mut tidy = tokio::time::interval(TIDY);
        loop {
            while flying.len() < IN_FLIGHT
                && let Some(job) = self.next_due()
            {
                flying.spawn(send(Arc::clone(&self.transport), job, self.pace.attempt));
            }
            let wake = self.due.first_key_value().map(|((at, _), _)| *at);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(mail) = self.posted.recv(), if self.due.len() < CAPACITY => self.take(mail),
                Some(sent) = flying.join_next() => self.settle(sent.ok()),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() && flying.len() < IN_FLIGHT => {}
                _ = tidy.tick() => self.transport.tidy(),
            }
        }
        let finish = async {
            while let Some(sent) = flying.join_next().await {
                self.settle(sent.ok());
            }
        };
        timeout(GRACE, finish).await.ok();
        let lost = self.due.len() + self.posted.len();
        if lost > 0 {
            tracing::warn!(
                lost,
                "stopped with login codes unsent; whoever waits for one asks again"
            );
        }
    }

    fn take(&mut self, mail: LoginMail) {
        if !mail.wanted {
            return self.metrics.mail(Fate::Unwanted);
        }
        let left = mail.expires_at.microseconds() - Time::now().microseconds();
        let now = Instant::now();
        let job = Job {
            mail,
            tries: 0,
            end: now + Duration::from_micros(u64::try_from(left).unwrap_or(0)),
        };
        self.put(now, job);
    }

    fn put(&mut self, at: Instant, job: Job) {
        self.posted_so_far += 1;
        self.due.insert((at, self.posted_so_far), job);
    }

    fn next_due(&mut self) -> Option<Job> {
        let first = self.due.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    /// Notes how a try went, and plans the next one where that makes sense. Neither an address nor what a mail server
    /// says, which likes to repeat addresses, is logged.
    fn settle(&mut self, sent: Option<Sent>) {
        let Some((mut job, result)) = sent else {
            // The panic's own text goes to standard error by the panic hook.
            tracing::error!("sending a login code panicked");
            return self.metrics.mail(Fate::Failed);
        };
        let Err(failure) = result else {
            return self.metrics.mail(Fate::Sent);
        };
        job.tries += 1;
        let again = Instant::now() + self.pause(job.tries);
        if failure.permanent || again >= job.end {
            self.metrics.mail(Fate::Failed);
            let tries = job.tries;
            tracing::error!(%failure, tries, "a login code could not be sent, and is not tried again");
        } else {
            tracing::warn!(%failure, tries = job.tries, "a login code could not be sent yet");
            self.put(again, job);
        }
    }

    /// Twice as long each time, less up to half of it by chance, so that mails that failed together part.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = self.pace.first.saturating_mul(1 << tries.saturating_sub(1).min(16));
        let chance = random::<1>()[0];
        let pause = doubled.min(self.pace.longest);
        pause.mul_f32(1.0 - f32::from(chance) / 512.0)
    }
}

async fn send(transport: Arc<Transport>, job: Job, limit: Duration) -> Sent {
    let mail = &job.mail;
    let result = match transport.as_ref() {
        Transport::Log => {
            // What this transport is for; every other one keeps both out of the log.
            tracing::info!(to = %mail.to, code = mail.code.expose(), "login code");
            Ok(())
        }
        Transport::Smtp(smtp) => timeout(limit, smtp.send(mail))
            .await
            .unwrap_or_else(|_| Err(Failure::slow(limit))),
    };
    (job, result)
}
