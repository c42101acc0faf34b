//! What is looked at before a copy of the database is begun.

use super::Error;
use crate::store::{Reserve, Store, StoreError};

/// An error while what is left is for the audit log.
pub(super) fn require_reserve(store: &Store) -> Result<(), Error> {
    if store.reserve() == Reserve::GivenUp {
        return Err(StoreError::DiskFull.into());
    }
    Ok(())
}
