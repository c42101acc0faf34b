//! Backups, on the organization plane.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Time;

/// A backup that was finished and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Backup {
    pub id: Uuid,
    /// Of the archive, in the storage.
    pub filename: String,
    pub size_bytes: u64,
    /// Of the archive, 64 hex digits.
    pub sha256: String,
    /// Id of the master key that opens it.
    pub key_id: String,
    pub created_at: Time,
    pub trigger: Trigger,
}

/// What a backup was made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `POST /api/backups`
    Manual,
    Schedule,
    /// `backup create`
    Command,
}

impl Trigger {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule => "schedule",
            Self::Command => "command",
        }
    }
}

/// The answer of a restore: a database beside the live one, which goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct RestoredBackup {
    /// Path of the restored database on the server's volume. To switch: stop the server, move the live one away together
    /// with its `-wal` and `-shm`, which may hold its newest changes, and with a `.lost-log`, which keeps everybody from the
    /// database; put this file in its place, start.
    pub restored_path: String,
    pub backup_id: Uuid,
}
