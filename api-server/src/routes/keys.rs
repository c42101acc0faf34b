//! The master keys: which ones the data needs, and their rotation.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use sealpod_core::wire::keys as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::backup::Unclear;
use crate::body::Query;
use crate::crypto::MasterKeyId;
use crate::error::ApiError;
use crate::rotation::{ReloadError, Server};
use crate::routes::Problems;
use crate::store::KeyNeeds;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(rotate))
}

/// List the master keys, by their ids: what needs each of them, and how far a rotation is
#[utoipa::path(
    get, path = "/api/keys", tag = "keys", security(("admin_key" = []), ("session" = [])),
    responses((status = 200, body = wire::Keys), Problems),
)]
async fn list(caller: Caller, State(app): State<App>, Query(()): Query<()>) -> Result<Json<wire::Keys>, ApiError> {
    caller.superadmin()?;
    shown(&app).await
}

/// Read the key file now and wrap everything under its first key
///
/// A new key file is found by itself within seconds; this says what is wrong with it, if anything is.
#[utoipa::path(
    post, path = "/api/keys/rotate", tag = "keys", security(("admin_key" = []), ("session" = [])),
    responses((status = 200, description = "What the rotation begins with", body = wire::Keys), Problems),
)]
async fn rotate(caller: Caller, State(app): State<App>, Query(()): Query<()>) -> Result<Json<wire::Keys>, ApiError> {
    caller.superadmin()?;
    // Whoever hangs up does not keep the server from using the new key.
    let (asked, by) = (app.clone(), caller.by());
    let reload = tokio::spawn(async move {
        let server = Server {
            store: asked.store(),
            keyring: asked.keyring(),
            readiness: asked.readiness(),
        };
        asked.rotation().reload(server, by).await
    });
    match reload.await.map_err(ApiError::internal)? {
        Ok(()) => shown(&app).await,
        Err(ReloadError::Store(error)) => Err(error.into()),
        Err(error) => Err(ApiError::Conflict(error.to_string().into())),
    }
}

async fn shown(app: &App) -> Result<Json<wire::Keys>, ApiError> {
    let needs = app.store().key_needs().await?;
    let backups = app.backups().by_key().await;
    let progress = app.rotation().progress();
    let mut ids: Vec<MasterKeyId> = app.keyring().ids().collect();
    let current = ids[0];
    let own = ids.len();
    for needs in &needs {
        if !ids.contains(&needs.id) {
            ids.push(needs.id);
        }
    }
    for id in backups.iter().flat_map(BTreeMap::keys) {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    let backups_of = |id| Some(backups.as_ref().ok()?.get(&id).copied().unwrap_or(0));
    // What a storage does not say for a moment makes nobody look for a key that was thrown away long ago. An archive that does
    // not open may need one of these.
    let is_unread = matches!(backups, Err(Unclear::Unread(_)));
    let keys = ids.iter().enumerate().filter_map(|(at, id)| {
        let needs = needs.iter().find(|key| key.id == *id);
        let key = key((*id, *id == current, at < own), needs, backups_of(*id));
        // A key that is gone and that nothing here needs is history: the audit log has it.
        let is_unused = key.state == wire::MasterKeyState::Unused && !is_unread;
        let is_history = key.may_be_removed || (backups.is_err() && is_unused);
        (key.in_keyring || !is_history).then_some(key)
    });
    Ok(Json(wire::Keys {
        current: current.to_string(),
        rotation: wire::Rotation {
            state: progress.state,
            done: progress.done,
            total: progress.total,
            problem: progress.problem,
        },
        keys: keys.collect(),
        backups_unknown: backups.as_ref().err().map(ToString::to_string),
    }))
}

fn key(
    (id, is_current, in_keyring): (MasterKeyId, bool, bool),
    needs: Option<&KeyNeeds>,
    backups: Option<u64>,
) -> wire::MasterKey {
    let total = needs.map_or(0, KeyNeeds::total);
    let unused_since = needs.and_then(|needs| needs.retired_at);
    let state = match needs {
        _ if is_current => wire::MasterKeyState::Current,
        _ if total > 0 => wire::MasterKeyState::InUse,
        Some(_) if unused_since.is_none() => wire::MasterKeyState::Verifying,
        _ => wire::MasterKeyState::Unused,
    };
    wire::MasterKey {
        id: id.to_string(),
        state,
        in_keyring,
        versions: needs.map_or(0, |needs| needs.versions),
        configurations: needs.map_or(0, |needs| needs.configurations),
        answers: needs.map_or(0, |needs| needs.answers),
        server_keys: needs.map_or(0, |needs| needs.server_keys),
        backups,
        may_be_removed: state == wire::MasterKeyState::Unused && backups == Some(0),
        first_used_at: needs.and_then(|needs| needs.first_used_at),
        unused_since,
    }
}
