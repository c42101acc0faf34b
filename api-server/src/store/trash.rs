//! The trash: what was deleted, how it comes back, and how it goes for good.

use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::trash::TrashKind;
use tokio::time::Instant;
use uuid::Uuid;

use super::{By, Creator, Result, Store, sqlite};
use crate::audit::Kind;
use crate::ids::{EnvironmentId, OrganizationId, ProjectId, TrashId};

/// One deletion that can be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    pub id: TrashId,
    pub organization: OrganizationId,
    pub kind: TrashKind,
    /// Id of what was deleted; of `SecretVersions`, that of the secret.
    pub object: Uuid,
    /// Its name when it was deleted.
    pub name: String,
    /// The project that it is, or is in, under the name that this has now.
    pub project: ProjectId,
    pub project_slug: String,
    /// The environment that it is, or is in: id and slug.
    pub environment: Option<(EnvironmentId, String)>,
    /// First and last of the deleted versions.
    pub versions: Option<[u64; 2]>,
    pub deleted_at: Time,
    pub deleted_by: Creator,
}

impl Trashed {
    /// What entries of the log about it are about.
    pub fn audit_kind(&self) -> Kind {
        match self.kind {
            TrashKind::Project => Kind::Project,
            TrashKind::Environment => Kind::Env,
            TrashKind::Secret | TrashKind::SecretVersions => Kind::Secret,
            TrashKind::Configuration => Kind::Config,
        }
    }
}

/// What becomes of what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It can be restored for a while.
    Trash,
    /// Nobody can bring it back; [`Store::finish_purge`] waits for its rows to go.
    Purge,
}

/// A piece of the trash, which is listed newest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrashPage {
    /// Begin behind this one, which need not be there any more.
    pub after: Option<TrashId>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

/// What has gone for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Deletions that cannot be undone any more.
    pub items: u64,
    /// Organizations that went with all they had.
    pub organizations: u64,
    pub rows: u64,
}

/// What one transaction of a purge did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) purged: Purged,
    pub(super) more: bool,
}

/// Between two transactions of a purge, so that it takes a share of the writer and not all of it.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a caller waits for a purge that takes long; the rest is done behind their back.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// What is in the trash, newest first, of what `permits` lets through; the page's limit counts only that.
    pub async fn trash<P>(&self, organization: OrganizationId, page: TrashPage, permits: P) -> Result<Vec<Trashed>>
    where
        P: Fn(&Trashed) -> bool + Send + 'static,
    {
        self.engine
            .read(move |view| sqlite::trash::list(view, organization, page, &permits))
            .await
    }

    pub async fn trashed(&self, organization: OrganizationId, id: TrashId) -> Result<Trashed> {
        self.engine
            .read(move |view| sqlite::trash::find(view.conn, organization, id))
            .await
    }

    /// Brings it back as it was when it was deleted: what had been deleted before stays so. `Refused(NameTaken)` where
    /// a live object has its name, `Refused(ParentDeleted)` where what it was in is itself deleted.
    pub async fn restore(&self, organization: OrganizationId, id: TrashId, by: By) -> Result<Trashed> {
        self.engine
            .write(move |tx| sqlite::trash::restore(tx, organization, id, &by))
            .await
    }

    /// Takes it out of the trash for good. Once this is on disk nobody can bring it back; see [`Store::finish_purge`].
    pub async fn purge(&self, id: TrashId, by: By) -> Result<()> {
        self.engine.write(move |tx| sqlite::purge::begin(tx, id, &by)).await?;
        self.finish_purge(id).await;
        Ok(())
    }

    /// Waits for the rows of a purge that is on record. They go in many small transactions, of which this does a few seconds'
    /// worth; the rest, and what fails, is left to [`Store::purge_due`].
    pub async fn finish_purge(&self, id: TrashId) {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            match self.engine.write(move |tx| sqlite::purge::item(tx, id)).await {
                Ok(Step { more: true, .. }) => tokio::time::sleep(PAUSE).await,
                Ok(Step { more: false, .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "a purge that is on record was not finished; the server goes on with it by itself");
                    return;
                }
            }
        }
    }

    /// Purges what was deleted before `cutoff`, and whatever a purge has begun with.
    pub async fn purge_due(&self, cutoff: Time, by: By) -> Result<Purged> {
        let mut all = Purged::default();
        loop {
            let by = by.clone();
            let Step { purged, more } = self.engine.write(move |tx| sqlite::purge::due(tx, cutoff, &by)).await?;
            all.items += purged.items;
            all.organizations += purged.organizations;
            all.rows += purged.rows;
            if !more {
                return Ok(all);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gives the disk back what purges left empty in the file; answers how many pages.
    pub async fn shrink(&self) -> Result<u64> {
        let mut pages = 0;
        loop {
            let freed = self.engine.write(sqlite::purge::shrink).await?;
            if freed == 0 {
                return Ok(pages);
            }
            pages += freed;
            tokio::time::sleep(PAUSE).await;
        }
    }
}
