//! What a change demands of the object that it changes.

use std::sync::Arc;

use super::{Object, Result, StoreError};

/// A condition on an object, judged in the transaction of the change itself: nobody else's change can come between.
pub struct Expect<T>(Option<Condition<T>>);

type Condition<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

impl<T> Expect<T> {
    /// No condition.
    pub fn anything() -> Self {
        Self(None)
    }

    pub fn that(holds: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(holds)))
    }

    /// `Stale` where the object is not as it should be.
    pub(super) fn check(&self, object: Object, found: &T) -> Result<()> {
        match &self.0 {
            Some(holds) if !holds(found) => Err(StoreError::Stale(object)),
            _ => Ok(()),
        }
    }
}

impl<T> Clone for Expect<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
