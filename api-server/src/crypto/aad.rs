//! What a sealed value is bound to.

use uuid::Uuid;

use crate::ids::{ConfigurationId, EnvironmentId, OrganizationId, ProjectId, RevisionId, SecretId, VersionId};

/// Associated data: where a sealed value belongs. Every part is preceded by its length, so that no two lists of parts
/// have one encoding; the first part names the format and what is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Of a version of a secret.
    pub fn version(
        organization: OrganizationId,
        project: ProjectId,
        environment: EnvironmentId,
        secret: SecretId,
        version: VersionId,
    ) -> Self {
        Self::of_ids(
            "sealpod/secret/1",
            [organization.0, project.0, environment.0, secret.0, version.0],
        )
    }

    /// Of a value of a configuration.
    pub fn configuration(
        organization: OrganizationId,
        project: ProjectId,
        environment: EnvironmentId,
        configuration: ConfigurationId,
        revision: RevisionId,
    ) -> Self {
        Self::of_ids(
            "sealpod/configuration/1",
            [organization.0, project.0, environment.0, configuration.0, revision.0],
        )
    }

    /// Of a key that the server keeps for itself.
    pub(crate) fn server_key(name: &str) -> Self {
        let mut aad = Self(Vec::new());
        aad.push(b"sealpod/server-key/1");
        aad.push(name.as_bytes());
        aad
    }

    /// Of an answer that is kept for an `Idempotency-Key`, by its scope.
    pub fn answer(scope: &[u8; 32]) -> Self {
        let mut aad = Self(Vec::new());
        aad.push(b"sealpod/answer/1");
        aad.push(scope);
        aad
    }

    fn of_ids(format: &str, ids: [Uuid; 5]) -> Self {
        let mut aad = Self(Vec::with_capacity(4 + format.len() + ids.len() * 20));
        aad.push(format.as_bytes());
        for id in ids {
            aad.push(id.as_bytes());
        }
        aad
    }

    /// This data, extended by one part at its front: the layers of an envelope differ in it.
    pub(super) fn for_layer(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Self(Vec::with_capacity(self.0.len() + 64));
        for part in parts {
            out.push(part);
        }
        out.push(&self.0);
        out.0
    }

    fn push(&mut self, part: &[u8]) {
        let length = u32::try_from(part.len()).expect("parts of associated data are short");
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        let aad = |parts: &[&str]| {
            let mut aad = Aad(Vec::new());
            for part in parts {
                aad.push(part.as_bytes());
            }
            aad
        };
        assert_ne!(aad(&["ab", "c"]), aad(&["a", "bc"]));
        assert_ne!(aad(&["a", ""]), aad(&["", "a"]));
    }

    #[test]
    fn a_version_and_a_configuration_of_the_same_ids_differ() {
        let place = (OrganizationId::new(), ProjectId::new(), EnvironmentId::new());
        let (outer, inner) = (Uuid::now_v7(), Uuid::now_v7());
        assert_ne!(
            Aad::version(place.0, place.1, place.2, SecretId(outer), VersionId(inner)),
            Aad::configuration(place.0, place.1, place.2, ConfigurationId(outer), RevisionId(inner))
        );
    }
}
