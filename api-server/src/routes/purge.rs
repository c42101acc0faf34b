//! `?purge=true` of deletions: for good and at once, instead of to the trash.

use axum::http::StatusCode;

use crate::app::App;
use crate::body::{QueryFields, ReadQuery};
use crate::ids::TrashId;
use crate::store::Fate;

/// How something is deleted.
#[derive(Debug, Clone, Copy, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Deletion {
    /// `true`: for good, not to the trash; needs the role `admin`
    #[param(value_type = Option<bool>)]
    pub purge: bool,
}

impl ReadQuery for Deletion {
    fn read(query: &mut QueryFields) -> Option<Self> {
        Some(Self {
            purge: query.boolean("purge", false)?,
        })
    }
}

impl Deletion {
    /// What the deletion itself says, so that nothing that was to go for good is ever to be found in the trash.
    pub fn fate(self) -> Fate {
        if self.purge { Fate::Purge } else { Fate::Trash }
    }

    /// Waits for what is to go for good, once that is on record.
    pub async fn finish(self, app: &App, id: TrashId) -> StatusCode {
        match self.fate() {
            Fate::Trash => {}
            Fate::Purge => app.store().finish_purge(id).await,
        }
        StatusCode::NO_CONTENT
    }
}
