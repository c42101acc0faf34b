//! What the server is kept busy with.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use super::super::child;
use super::super::client::{Client, Load, Request, Target, Waiting};
use super::super::durability::new_master_key;
use super::super::plane::Plane;
use super::super::server::Server;
use super::super::stage::{SECRETS, Stage};
use super::sample::Sample;
use crate::progress::Step;

/// So many connections, and requests a second.
const READS: (usize, u32) = (8, 200);
const WRITES: (usize, u32) = (2, 20);
/// Secrets that only the polls wait for: the first ones.
const WAITED_FOR: usize = 20;
/// Polls that wait at a time; all of them go away and others come, as pods do.
const POLLS: usize = 200;
const SAMPLE: Duration = Duration::from_secs(10);
const MEMORY: Duration = Duration::from_secs(1);
const CHURN: Duration = Duration::from_secs(20);
const LOGIN: Duration = Duration::from_secs(15);
const BACKUP: Duration = Duration::from_secs(90);
const ROTATION: Duration = Duration::from_secs(150);
/// How many backups and master keys are kept.
const KEPT: usize = 2;
const MAIL_WITHIN: Duration = Duration::from_secs(10);

pub fn describe() -> String {
    format!(
        "{SECRETS} secrets, {} reads and {} writes a second, {POLLS} polls that come and go every {} s, a login every {} s, \
         a backup every {} s, a rotation of the master key every {} s",
        READS.1,
        WRITES.1,
        CHURN.as_secs(),
        LOGIN.as_secs(),
        BACKUP.as_secs(),
        ROTATION.as_secs()
    )
}

/// Something that happens now and then.
struct Every {
    interval: Duration,
    next: Duration,
}

impl Every {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: interval,
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

pub struct Busy<'s> {
    stage: &'s Stage,
    server: &'s Server,
    client: Client,
    plane: Plane<'s>,
    reads: Load,
    writes: Load,
    polls: Option<Waiting>,
    logins: usize,
}

impl<'s> Busy<'s> {
    /// Begins to read and write.
    pub fn begin(stage: &'s Stage, server: &'s Server, client: &Client, runtime: &'s Runtime) -> Result<Self> {
        // All over the secrets: this prime divides no round number.
        let place = |n: usize| n * 7_919 % SECRETS;
        let read = |n: usize| Request {
            method: "GET",
            body: None,
            ..stage.put(place(n))
        };
        let write = |n: usize| stage.put(WAITED_FOR + place(n) % (SECRETS - WAITED_FOR));
        let reads: Vec<_> = (0..SECRETS).map(read).collect();
        let writes: Vec<_> = (0..SECRETS).map(write).collect();
        Ok(Self {
            stage,
            server,
            client: client.clone(),
            plane: Plane::new(runtime, &stage.launch, server)?,
            reads: client.load(server.address, READS, &reads)?,
            writes: client.load(server.address, WRITES, &writes)?,
            polls: None,
            logins: 0,
        })
    }

    /// For so long. An error at the first answer that is none of success.
    pub fn go_on(&mut self, length: Duration, step: &Step, samples: &mut Vec<Sample>) -> Result<()> {
        let began = Instant::now();
        let (mut sample, mut look) = (Every::new(SAMPLE), Every::new(MEMORY));
        let mut memory = Vec::new();
        let (mut churn, mut login) = (Every::new(CHURN), Every::new(LOGIN));
        let (mut backup, mut rotation) = (Every::new(BACKUP), Every::new(ROTATION));
        while began.elapsed() < length {
            if look.is_due(began.elapsed()) {
                memory.push(child::memory(self.server.process.pid())?.resident);
            }
            if sample.is_due(began.elapsed()) {
                let times = (self.reads.since_last()?, self.writes.since_last()?);
                let taken = Sample::take(began.elapsed(), (&self.stage.launch, self.server), &mut memory, times)?;
                step.follow(&format!("{} s, {} MiB", taken.at.as_secs(), taken.memory_kib >> 10));
                samples.push(taken);
            }
            if churn.is_due(began.elapsed()) {
                self.churn()?;
            }
            if login.is_due(began.elapsed()) {
                self.log_in()?;
            }
            if backup.is_due(began.elapsed()) {
                self.back_up()?;
            }
            if rotation.is_due(began.elapsed()) {
                self.rotate()?;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Those that waited get a change and go, and others come.
    fn churn(&mut self) -> Result<()> {
        if let Some(mut polls) = self.polls.take() {
            polls.change()?;
        }
        let target = Target {
            address: self.server.address,
            ca: None,
            http2: false,
        };
        let bundle = Stage::bundle(WAITED_FOR);
        let change = self.stage.put(0);
        let polls = Client {
            log: self.client.log.with_file_name("polls.log"),
            ..self.client.clone()
        };
        self.polls = Some(polls.wait(&target, (&self.stage.waiting, POLLS), &bundle, &change)?);
        Ok(())
    }

    fn back_up(&self) -> Result<()> {
        self.plane.back_up()?;
        let folder = self
            .stage
            .launch
            .backups
            .as_ref()
            .context("there is a folder for backups")?;
        let mut files = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
        // Their names begin with their times, and each has what is known of it beside it.
        files.sort_by_key(fs::DirEntry::file_name);
        for old in files.iter().rev().skip(2 * KEPT) {
            fs::remove_file(old.path())?;
        }
        Ok(())
    }

    fn rotate(&self) -> Result<()> {
        let file = &self.stage.launch.master_key;
        new_master_key(&self.stage.launch)?;
        self.plane.rotate()?;
        let keys = fs::read_to_string(file)?;
        let kept: Vec<_> = keys.lines().take(KEPT).collect();
        let partial = file.with_extension("new");
        fs::write(&partial, kept.join("\n") + "\n")?;
        Ok(fs::rename(partial, file)?)
    }

    /// As a person does it: asks for a code, reads it in the mail, which is a line of the log here, and leaves again.
    fn log_in(&mut self) -> Result<()> {
        let email = format!("soak-{}@example.com", self.logins % 50);
        self.logins += 1;
        let log = self.stage.launch.database.with_file_name("server.log");
        let written = usize::try_from(fs::metadata(&log)?.len())?;
        self.plane.visit(&email, || {
            let began = Instant::now();
            loop {
                let text = fs::read(&log)?;
                let new = String::from_utf8_lossy(text.get(written..).unwrap_or_default());
                if let Some(code) = code_for(&new, &email) {
                    return Ok(code);
                }
                ensure!(began.elapsed() < MAIL_WITHIN, "no login code came for {email}");
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    }
}

/// The code in the line of the log that is the mail to `email`.
fn code_for(log: &str, email: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.contains(&format!("to={email} ")))?;
    let (_, code) = line.split_once(" code=")?;
    Some(
        code.trim_matches('"')
            .chars()
            .take_while(char::is_ascii_digit)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_read_from_the_line_of_its_address() {
        let log = "INFO mail: login code to=a@example.com code=\"123456\"\nINFO mail: login code to=b@example.com code=\"654321\"\n";
        assert_eq!(code_for(log, "a@example.com").as_deref(), Some("123456"));
        assert_eq!(code_for(log, "b@example.com").as_deref(), Some("654321"));
        assert_eq!(code_for(log, "c@example.com"), None);
    }
}
