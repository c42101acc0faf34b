//! The consumer plane, `/api/consumer`: what an application reads with its own key. Read-only; what is not there, for
//! whatever reason, is one and the same 404.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Application;
use crate::body::{Path, Query, QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::ids::ProjectId;
use crate::routes::Problems;
use crate::routes::list::{self, List, Piece};
use crate::routes::management::MAX_PIECE;
use crate::store::{Configuration, ConfigurationPage, EnvironmentRef, ProjectRef};
use crate::{configurations, values};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(secret))
        .routes(routes!(list_configurations))
        .routes(routes!(configuration))
}

/// `?environment=slug`
struct InEnvironment(String);

impl ReadQuery for InEnvironment {
    fn read(query: &mut QueryFields) -> Option<Self> {
        query.required("environment").map(Self)
    }
}

impl InEnvironment {
    fn of(self, application: &Application) -> EnvironmentRef {
        ProjectRef::Id(application.project().id).environment(self.0)
    }
}

/// One text for an environment, secret, version or key that is not there.
fn undistinguished(error: ApiError) -> ApiError {
    match error {
        ApiError::NotFound(_) => {
            ApiError::not_found("this application has no such environment, or nothing active under this name in it")
        }
        other => other,
    }
}

/// Read the active version of a secret
#[utoipa::path(
    get, path = "/api/consumer/secrets/{name}", tag = "consumer", security(("application_key" = [])),
    params(("name" = String, Path), ("environment" = String, Query, description = "Slug of the environment")),
    responses((status = 200, body = wire::ConsumerSecret), Problems),
)]
async fn secret(
    application: Application,
    State(app): State<App>,
    Path(name): Path<String>,
    Query(environment): Query<InEnvironment>,
) -> Result<Json<wire::ConsumerSecret>, ApiError> {
    let environment = environment.of(&application);
    let read = values::read(&app, environment, &name, application.by())
        .await
        .map_err(undistinguished)?;
    let (value, encoding) = read.value.to_wire();
    let version = &read.version;
    Ok(Json(wire::ConsumerSecret {
        name: version.name.clone(),
        value,
        properties: wire::ConsumerSecretProperties {
            // What is not enabled is not active, and not found here.
            enabled: true,
            expires_on: version.expires_at,
            not_before: version.not_before,
            version: version.number,
            encoding,
            created_on: version.created_at,
            updated_on: None,
        },
    }))
}

fn item(app: &App, configuration: Configuration) -> Result<wire::ConsumerConfiguration, ApiError> {
    Ok(wire::ConsumerConfiguration {
        value: configurations::open(app, &configuration)?,
        key: configuration.key,
        label: configuration.location.environment_slug,
    })
}

/// List the configurations of an environment
#[utoipa::path(
    get, path = "/api/consumer/configurations", tag = "consumer", security(("application_key" = [])),
    params(("environment" = String, Query, description = "Slug of the environment")),
    responses((status = 200, description = "By key", body = wire::ConsumerConfigurations), Problems),
)]
async fn list_configurations(
    application: Application,
    State(app): State<App>,
    Query(environment): Query<InEnvironment>,
) -> Result<Response, ApiError> {
    let items = Items {
        project: application.project().id,
        environment: environment.0,
    };
    list::everything(app, items, None).await
}

/// The configurations of one environment.
struct Items {
    project: ProjectId,
    environment: String,
}

impl List for Items {
    type Item = wire::ConsumerConfiguration;
    type Place = String;

    /// [`wire::ConsumerConfigurations`]
    const AROUND: (&'static str, &'static str) = (r#"{"items":["#, "]}");

    async fn piece(&self, app: &App, after: Option<String>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = ConfigurationPage {
            environment: Some(self.environment.clone()),
            after: after.map(|key| (self.environment.clone(), key)),
            limit: limit as usize,
            bytes: MAX_PIECE,
        };
        let found = app.store().configuration_page(ProjectRef::Id(self.project), page).await;
        let found = found.map_err(|error| undistinguished(error.into()))?;
        let items = found.entries.into_iter().map(|found| item(app, found));
        Ok(Piece {
            items: items.collect::<Result<_, _>>()?,
            more: found.more,
        })
    }

    fn place(item: &Self::Item) -> String {
        item.key.clone()
    }
}

/// Read a configuration
#[utoipa::path(
    get, path = "/api/consumer/configurations/{key}", tag = "consumer", security(("application_key" = [])),
    params(("key" = String, Path), ("environment" = String, Query, description = "Slug of the environment")),
    responses((status = 200, body = wire::ConsumerConfiguration), Problems),
)]
async fn configuration(
    application: Application,
    State(app): State<App>,
    Path(key): Path<String>,
    Query(environment): Query<InEnvironment>,
) -> Result<Json<wire::ConsumerConfiguration>, ApiError> {
    let environment = environment.of(&application);
    let found = app
        .store()
        .configuration(environment, &key)
        .await
        .map_err(ApiError::from);
    item(&app, found.map_err(undistinguished)?).map(Json)
}
