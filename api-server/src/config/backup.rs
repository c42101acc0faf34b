//! What is configured of backups.

use clap::Args;

use super::{Faults, given};
use crate::backup::schedule::Schedule;
use crate::backup::{Recipient, Settings, Storage};

const MAX_HOURS: u32 = 8_760;
const MAX_DAYS: u32 = 3_650;
const MAX_WEEKS: u32 = 520;

/// Where backups go.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// Where backups are kept: `file:///directory`, or `s3://bucket/prefix` with the usual `AWS_…` variables; without it
    /// backups are disabled
    #[arg(long, env = "SEALPOD_BACKUP_URL", value_name = "URL")]
    pub backup_url: Option<String>,

    /// Public keys of age, `age1…`, separated by commas: whoever has one of their private keys can restore without the master
    /// key
    #[arg(long, env = "SEALPOD_BACKUP_RECIPIENTS", value_name = "KEYS")]
    pub backup_recipients: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    pub storage: StorageArgs,

    /// Hours between two backups; 0: none is made by itself
    #[arg(
        long,
        env = "SEALPOD_BACKUP_SCHEDULE_HOURS",
        value_name = "HOURS",
        default_value = "0"
    )]
    pub backup_schedule_hours: String,

    /// Days for which the last scheduled backup of each day is kept
    #[arg(
        long,
        env = "SEALPOD_BACKUP_RETAIN_DAILY_DAYS",
        value_name = "DAYS",
        default_value = "7"
    )]
    pub backup_retain_daily_days: String,

    /// Weeks for which the last scheduled backup of each week is kept
    #[arg(
        long,
        env = "SEALPOD_BACKUP_RETAIN_WEEKLY_WEEKS",
        value_name = "WEEKS",
        default_value = "4"
    )]
    pub backup_retain_weekly_weeks: String,
}

impl StorageArgs {
    pub fn check(self, faults: &mut Faults) -> Option<Settings> {
        let storage = given(self.backup_url).map(|url| faults.check("SEALPOD_BACKUP_URL", Storage::from_url(&url)));
        let recipients = given(self.backup_recipients).unwrap_or_default();
        let recipients = recipients.split(',').map(str::trim).filter(|text| !text.is_empty());
        let recipients: Result<Vec<Recipient>, String> = recipients.map(str::parse).collect();
        let recipients = faults.check("SEALPOD_BACKUP_RECIPIENTS", recipients);
        let storage = match storage {
            Some(checked) => Some(checked?),
            None => None,
        };
        Some(Settings {
            storage,
            recipients: recipients?,
        })
    }
}

impl BackupArgs {
    pub(super) fn check(self, faults: &mut Faults) -> Option<(Settings, Schedule)> {
        let settings = self.storage.check(faults);
        let mut whole = |setting: &str, text: &str, max: u32| {
            let number = text.parse().ok().filter(|number| *number <= max);
            let number: Result<u32, _> = number.ok_or_else(|| format!("must be a whole number from 0 to {max}"));
            faults.check(setting, number)
        };
        let hours = whole("SEALPOD_BACKUP_SCHEDULE_HOURS", &self.backup_schedule_hours, MAX_HOURS);
        let days = whole(
            "SEALPOD_BACKUP_RETAIN_DAILY_DAYS",
            &self.backup_retain_daily_days,
            MAX_DAYS,
        );
        let weeks = whole(
            "SEALPOD_BACKUP_RETAIN_WEEKLY_WEEKS",
            &self.backup_retain_weekly_weeks,
            MAX_WEEKS,
        );
        let (settings, schedule) = (
            settings?,
            Schedule {
                hours: hours?,
                daily_days: days?,
                weekly_weeks: weeks?,
            },
        );
        if schedule.hours > 0 && settings.storage.is_none() {
            faults.add("SEALPOD_BACKUP_SCHEDULE_HOURS", "needs SEALPOD_BACKUP_URL beside it");
        }
        Some((settings, schedule))
    }
}
