//! `?purge=true` of deletions: for good and at once, instead of to the trash.

use axum::http::StatusCode;

use crate::app::App;
use crate::audit::By;
use crate::body::{QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::ids::TrashId;

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
    /// What is left to do once it is in the trash, whence nobody can bring it back as soon as this begins.
    pub async fn finish(self, app: &App, id: TrashId, by: By) -> Result<StatusCode, ApiError> {
        if self.purge {
            app.store().purge(id, by).await?;
        }
        Ok(StatusCode::NO_CONTENT)
    }
}
