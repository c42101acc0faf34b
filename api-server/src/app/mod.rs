//! The application: what handlers share, the router, and the server around it.

mod heads;
mod layers;
mod metrics;
mod run;
mod vitals;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use layers::POLL_SLACK;
pub use metrics::{Metrics, OpenPoll};
pub use run::{RunError, open_store, run};

use crate::auth::admin_key::AdminKeys;
use crate::auth::refusals::Refusals;
use crate::auth::superadmins::Superadmins;
use crate::backup::Backups;
use crate::bundle::Polls;
use crate::crypto::Keyring;
use crate::error::ApiError;
use crate::idempotency::Turns;
use crate::limits::Limits;
use crate::login::Login;
use crate::maintenance::TrashDays;
use crate::reports::Reports;
use crate::rotation::Rotation;
use crate::routes;
use crate::store::{ProjectRef, Store};

/// What an [`App`] is made of.
pub struct Parts {
    pub store: Store,
    pub keyring: Keyring,
    pub rotation: Rotation,
    pub backups: Backups,
    pub admin_keys: Arc<AdminKeys>,
    pub superadmins: Superadmins,
    pub refusals: Refusals,
    pub limits: Limits,
    pub reports: Reports,
    pub polls: Polls,
    pub login: Login,
    /// Name of the organization in which the management plane works.
    pub default_organization: String,
    /// Whether the page and the document of the API are served.
    pub docs: bool,
    /// How long what was deleted can be restored.
    pub trash: TrashDays,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// Cancelled when the server begins to stop.
    pub shutdown: CancellationToken,
}

/// What handlers share. Clones are cheap.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    pub fn backups(&self) -> &Backups {
        &self.0.backups
    }

    pub fn rotation(&self) -> &Rotation {
        &self.0.rotation
    }

    pub fn admin_keys(&self) -> &AdminKeys {
        &self.0.admin_keys
    }

    pub fn superadmins(&self) -> &Superadmins {
        &self.0.superadmins
    }

    pub fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub fn reports(&self) -> &Reports {
        &self.0.reports
    }

    pub fn polls(&self) -> &Polls {
        &self.0.polls
    }

    pub fn login(&self) -> &Login {
        &self.0.login
    }

    pub fn serves_docs(&self) -> bool {
        self.0.docs
    }

    pub fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    pub fn default_organization(&self) -> &str {
        &self.0.default_organization
    }

    pub fn trash_days(&self) -> TrashDays {
        self.0.trash
    }

    /// An application of the management plane.
    pub fn application(&self, slug: &str) -> ProjectRef {
        ProjectRef::slug(self.default_organization(), slug)
    }
}

/// Every route of the main listener behind its layers. The first to see a request is the last one added here.
pub fn router(app: App) -> Router {
    let (router, _) = routes::router().split_for_parts();
    router
        .fallback(|| std::future::ready(ApiError::no_such_path()))
        .method_not_allowed_fallback(|| std::future::ready(ApiError::MethodNotAllowed))
        .layer(from_fn_with_state((app.clone(), Turns::default()), layers::way_in))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(app.clone(), layers::boundary))
        .with_state(app)
}
