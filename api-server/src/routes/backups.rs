//! Backups: superadmins only.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sealpod_core::wire::backups as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::links::created;
use crate::app::App;
use crate::auth::Caller;
use crate::backup;
use crate::body::{Path, Query};
use crate::error::ApiError;
use crate::routes::Problems;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(restore))
}

/// List the backups that were finished and checked
#[utoipa::path(
    get, path = "/api/backups", tag = "backups", security(("admin_key" = []), ("session" = [])),
    responses((status = 200, description = "Newest first", body = [wire::Backup]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Query(()): Query<()>,
) -> Result<Json<Vec<wire::Backup>>, ApiError> {
    caller.superadmin()?;
    Ok(Json(app.backups().list().await?))
}

/// Make a backup
///
/// Answers once it was opened again and checked: some seconds for each hundred thousand secrets. One is made at a time.
#[utoipa::path(
    post, path = "/api/backups", tag = "backups", security(("admin_key" = []), ("session" = [])),
    responses((status = 201, body = wire::Backup), Problems),
)]
async fn create(caller: Caller, State(app): State<App>, Query(()): Query<()>) -> Result<Response, ApiError> {
    caller.superadmin()?;
    app.backups().enabled()?;
    let by = caller.by();
    // Whoever asked may go away; what was begun is finished, and goes on record.
    let made = tokio::spawn(async move { app.backups().create(app.store(), wire::Trigger::Manual, by).await });
    let made = made.await.map_err(ApiError::internal)??;
    created(&format!("/api/backups/{}", made.id), &made)
}

/// Get a backup's metadata
#[utoipa::path(
    get, path = "/api/backups/{backup_id}", tag = "backups", security(("admin_key" = []), ("session" = [])),
    params(("backup_id" = Uuid, Path)), responses((status = 200, body = wire::Backup), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Query(()): Query<()>,
) -> Result<Json<wire::Backup>, ApiError> {
    caller.superadmin()?;
    Ok(Json(app.backups().get(id).await?))
}

/// Restore a backup to a new file beside the database
///
/// The server goes on with the database that it has. To switch: stop it, put the restored file in that one's place without
/// its `-wal`, `-shm` and `.lost-log`, start it. In the restored database every session and every key is ended.
#[utoipa::path(
    post, path = "/api/backups/{backup_id}/restore", tag = "backups", security(("admin_key" = []), ("session" = [])),
    params(("backup_id" = Uuid, Path)), responses((status = 200, body = wire::RestoredBackup), Problems),
)]
async fn restore(
    caller: Caller,
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Query(()): Query<()>,
) -> Result<Json<wire::RestoredBackup>, ApiError> {
    caller.superadmin()?;
    let by = caller.by();
    let restored = tokio::spawn(async move { app.backups().restore(app.store(), id, by).await });
    let restored = restored.await.map_err(ApiError::internal)??;
    Ok(Json(wire::RestoredBackup {
        restored_path: restored.path.display().to_string(),
        backup_id: id,
    }))
}

impl From<backup::Error> for ApiError {
    fn from(error: backup::Error) -> Self {
        use backup::Error as E;
        let text = error.to_string();
        match error {
            E::Disabled => Self::BackupsDisabled,
            E::Unknown => Self::not_found("no backup has this id"),
            E::Damaged(_) => Self::BackupDamaged(format!("{text}; use another one")),
            E::NotAnArchive
            | E::NotABackup(_)
            | E::NotAnExport(_)
            | E::Another { .. }
            | E::Storage(backup::StorageError::Absent { .. })
            | E::Open(crate::store::OpenError::Damaged { .. }) => Self::BackupDamaged(text),
            E::UnknownFormat { .. }
            | E::ForeignKey { .. }
            | E::NoRecipients
            | E::ForeignIdentity
            | E::Newer { .. }
            | E::Exists(_)
            | E::LogBeside(_)
            | E::Busy => Self::Conflict(text.into()),
            E::Open(crate::store::OpenError::LongLog { .. }) => Self::Unavailable {
                detail: "too much was written while the database was copied; try again when less is",
                cause: text,
            },
            E::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => Self::DiskFull { cause: text },
            E::Open(error) if error.is_disk_full() => Self::DiskFull { cause: text },
            E::Storage(backup::StorageError::Directory { cause, .. })
                if cause.kind() == std::io::ErrorKind::StorageFull =>
            {
                Self::Unavailable {
                    detail: "the volume of the backups is full; free space there and try again",
                    cause: text,
                }
            }
            E::Storage(_) => Self::Unavailable {
                detail: "the storage of the backups does not work; the server's log says why",
                cause: text,
            },
            E::Store(error) => error.into(),
            E::TooManyRecipients
            | E::Recovery(_)
            | E::ManifestTooLong { .. }
            | E::BrokenChain { .. }
            | E::Unfinished(_)
            | E::Open(_)
            | E::Io(_) => Self::internal(text),
        }
    }
}
