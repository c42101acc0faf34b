//! Conditions as the Kubernetes API conventions have them: a time moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The condition that every kind has.
pub const READY: &str = "Ready";
/// `True` while only an edit of the object helps, which is what kstatus, and so Helm and Flux, take it for.
pub const STALLED: &str = "Stalled";
/// Longest message, in bytes: a status is kept in etcd and read by people.
const MAX_MESSAGE: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it is compared with what the object shows now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub kind: &'static str,
    pub status: Status,
    pub reason: &'static str,
    pub message: String,
}

impl Wanted {
    pub fn new(kind: &'static str, status: Status, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status,
            reason,
            message: message.into(),
        }
    }

    pub fn ready(message: impl Into<String>) -> Self {
        Self::new(READY, Status::True, "Synced", message)
    }

    pub fn not_ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(READY, Status::False, reason, message)
    }
}

/// The condition of one type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// `wanted` with the times of `old`, where the status is the same.
pub fn merge(old: &[Condition], wanted: &[Wanted], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let condition = |wanted: &Wanted| {
        let before = find(old, wanted.kind).filter(|c| c.status == wanted.status.as_str());
        Condition {
            type_: wanted.kind.to_owned(),
            status: wanted.status.as_str().to_owned(),
            reason: wanted.reason.to_owned(),
            message: shorten(&wanted.message, MAX_MESSAGE).to_owned(),
            observed_generation: generation,
            last_transition_time: before.map_or_else(|| seconds(now), |c| c.last_transition_time.clone()),
        }
    };
    wanted.iter().map(condition).collect()
}

/// A time as Kubernetes keeps it, so that what is read back is equal to what was written.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).expect("the second of a timestamp is one"))
}

/// The longest beginning of at most `limit` bytes.
pub fn shorten(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_moves_only_with_the_status() {
        let first = merge(&[], &[Wanted::not_ready("A", "a")], Some(1), at(100));
        let other_reason = merge(&first, &[Wanted::not_ready("B", "b")], Some(2), at(200));
        assert_eq!(other_reason[0].last_transition_time, first[0].last_transition_time);
        assert_eq!(
            (other_reason[0].reason.as_str(), other_reason[0].observed_generation),
            ("B", Some(2))
        );
        let now_ready = merge(&other_reason, &[Wanted::ready("fine")], Some(2), at(300));
        assert_eq!(now_ready[0].last_transition_time, seconds(at(300)));
    }

    #[test]
    fn what_is_written_equals_what_is_read_back() {
        let time = Timestamp::new(100, 5).unwrap();
        let conditions = merge(&[], &[Wanted::ready("fine")], None, time);
        let json = serde_json::to_string(&conditions).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Condition>>(&json).unwrap(), conditions);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten("aé", 2), "a");
        assert_eq!(shorten("aé", 3), "aé");
        assert_eq!(shorten("", 3), "");
    }
}
