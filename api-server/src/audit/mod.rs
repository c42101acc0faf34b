//! The audit log: who did what to which object, as a chain of keyed hashes.
//!
//! Entries are built from the types here and from nothing else: there is no field that a request's body, a header or a
//! value could reach. Every organization has a chain of its own, and what belongs to none is in the chain of the
//! instance. An entry is stored in the transaction of the change that it records (see [`crate::store`]).

mod answer;
mod chain;
mod entry;
mod segment;

pub use chain::{AuditKey, Broken, End, GENESIS, Head, StoredEntry, check};
pub use entry::{
    Actor, ActorKind, By, Chain, Entry, Kind, MAX_TEXT, Metadata, Outcome, RuleMetadata, Source, UnknownWord, Verb,
};
pub use segment::Segment;
