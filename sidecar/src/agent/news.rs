//! What the app has to be told of, also where this process dies before it is.

use std::path::Path;

use super::{Agent, Until};
use crate::handover;

impl Agent {
    /// To be called before files are changed that the app may have read.
    pub(super) fn mark_untold(&self) {
        let session = self.session.as_ref();
        let listens = session.is_some_and(|session| session.binding.on_change.is_some());
        if listens
            && self.until == Until::Stopped
            && self.status.is_open()
            && let Err(error) = handover::mark_untold(Path::new(&self.mounted.mount_path))
        {
            // The app is told nevertheless, unless this process dies before.
            tracing::debug!(binding = self.mounted.name, %error, "that the app does not know cannot be written down");
        }
    }

    /// Has the app told of what it does not know yet. What changed under `init` no app has read before.
    pub(super) fn pass_on(&mut self) {
        let Some(session) = &self.session else { return };
        if let Some(swapped) = self.untold.take()
            && self.until == Until::Stopped
            && let Some(how) = &session.binding.on_change
        {
            self.notifier.changed(how, swapped);
        }
        self.mark_told();
    }

    /// Takes the mark away once there is no more to tell.
    pub(super) fn mark_told(&self) {
        if self.untold.is_some() || !self.notifier.is_idle() {
            return;
        }
        if let Err(error) = handover::mark_told(Path::new(&self.mounted.mount_path)) {
            tracing::debug!(binding = self.mounted.name, %error, "that the app knows cannot be written down");
        }
    }
}
