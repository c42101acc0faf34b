//! Reads that are answered by memory where that is as good as the database.

use std::sync::Arc;

use sealpod_core::Time;

use super::super::{ActiveVersion, EnvironmentRef, KeyHolder, Location, Result};
use super::fresh::Stamp;
use super::reader::View;
use super::{Engine, environments, keys, values};
use crate::crypto::KeyDigest;

impl Engine {
    /// Reads what is to be remembered. The stamp is taken when the read's turn comes, before its first statement fixes what
    /// it sees: what changed while it waited does not count against it.
    async fn look<T, F>(&self, work: F) -> Result<(Stamp, T)>
    where
        T: Send + 'static,
        F: FnOnce(&View<'_>) -> Result<T> + Send + 'static,
    {
        let remembered = Arc::clone(&self.remembered);
        self.read(move |view| {
            let stamp = remembered.stamp();
            Ok((stamp, work(view)?))
        })
        .await
    }

    /// Whose key it is, as of `clock`; by memory where that is as good as the database.
    pub(in super::super) async fn find_key(&self, digest: KeyDigest, clock: Time) -> Result<Option<KeyHolder>> {
        self.health.check()?;
        if let Some(holder) = self.remembered.key(&digest, clock) {
            return Ok(Some(holder));
        }
        let looked = self.look(move |view| keys::find(view.conn, &digest, clock)).await?;
        if let (stamp, Some(holder)) = &looked {
            self.remembered.keep_key(*stamp, &digest, holder);
        }
        Ok(looked.1)
    }

    /// Where a live environment is; by memory where that is as good as the database.
    pub(in super::super) async fn location(&self, environment: EnvironmentRef) -> Result<Arc<Location>> {
        self.health.check()?;
        if let Some(location) = self.remembered.location(&environment) {
            return Ok(location);
        }
        let asked = environment.clone();
        let (stamp, located) = self.look(move |view| environments::locate(view.conn, &asked)).await?;
        let location = Arc::new(located);
        self.remembered.keep_location(stamp, environment, Arc::clone(&location));
        Ok(location)
    }

    /// The version that counts now; by memory where that is as good as the database.
    pub(in super::super) async fn active_version(
        &self,
        environment: EnvironmentRef,
        name: &str,
    ) -> Result<Arc<ActiveVersion>> {
        self.health.check()?;
        let now = Time::now();
        let remembered = self.remembered.location(&environment);
        if let Some(version) = remembered.and_then(|location| self.remembered.active_version(&location, name, now)) {
            return Ok(version);
        }
        let (asked, name) = (environment.clone(), name.to_owned());
        let looking = self.look(move |view| Ok((values::active(view, &asked, &name)?, view.now)));
        let (stamp, ((version, until), from)) = looking.await?;
        // All versions of an environment share where that is.
        let known = self.remembered.location(&environment);
        let location = known.filter(|known| **known == *version.location);
        let version = Arc::new(ActiveVersion {
            location: location.unwrap_or_else(|| Arc::clone(&version.location)),
            ..version
        });
        self.remembered.keep_version(stamp, &version, (from, until));
        self.remembered
            .keep_location(stamp, environment, Arc::clone(&version.location));
        Ok(version)
    }
}
