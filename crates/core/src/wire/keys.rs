//! The master keys of the server: which ones the data needs, and how far a rotation is.

use serde::{Deserialize, Serialize};

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

use crate::Time;

/// `GET /api/keys`, and the answer of `POST /api/keys/rotate`. Ids say nothing about the keys themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Keys {
    /// Id of the key that seals: the first one of the key file.
    pub current: String,
    pub rotation: Rotation,
    /// The current one first, then the others of the key file in its order, then those that are needed and not in it.
    pub keys: Vec<MasterKey>,
    /// Why `backups` is absent of each key, and what to do about it; absent where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups_unknown: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Rotation {
    pub state: RotationState,
    /// How many values are done in this state, of how many.
    pub done: u64,
    pub total: u64,
    /// Why it does not go on, while it is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// Everything is under the current key, and was found to open.
    Idle,
    /// What is under other keys is being wrapped under the current one.
    Rewrapping,
    /// Everything is being opened, before an earlier key counts as unused.
    Verifying,
    /// Something stands in the way; it is tried again within minutes.
    Failed,
}

impl RotationState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Rewrapping => "rewrapping",
            Self::Verifying => "verifying",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct MasterKey {
    pub id: String,
    pub state: MasterKeyState,
    /// Whether the server has it.
    pub in_keyring: bool,
    /// What needs it: versions of secrets, values of configurations, answers that are kept for an `Idempotency-Key`, the
    /// server's own secrets.
    pub versions: u64,
    pub configurations: u64,
    pub answers: u64,
    pub server_keys: u64,
    /// Backups that are no use without it, copies of the database beside it, and what is being made and may need it; absent
    /// while that cannot be known, as it is without a place for backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<u64>,
    /// No value and no backup needs it, and both are known: its line may be taken out of the key file, and the key thrown away.
    pub may_be_removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_used_at: Option<Time>,
    /// When everything was found to open without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MasterKeyState {
    /// It seals what is new.
    Current,
    /// Values are still under it.
    InUse,
    /// Nothing is under it any more, and that everything opens without it is not proved yet.
    Verifying,
    /// No value needs it. Backups may.
    Unused,
}

impl MasterKeyState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::InUse => "in_use",
            Self::Verifying => "verifying",
            Self::Unused => "unused",
        }
    }
}
