//! The UID of an object as a key of maps that hold something for each of thousands.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Sixteen bytes, and none beside them. UIDs are UUIDs; whatever else a server gives is known by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uid([u8; 16]);

impl Uid {
    pub fn of(text: &str) -> Self {
        Self(Uuid::try_parse(text).map_or_else(|_| digest(text.as_bytes()), Uuid::into_bytes))
    }
}

/// Enough of a hash to tell any two apart, whoever wrote them.
pub fn digest(bytes: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(bytes);
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_uid_has_a_key_of_its_own() {
        let uuid = "0d3b0e3e-7b1c-4b5e-9a52-3f2f5b0c8a11";
        assert_eq!(Uid::of(uuid), Uid::of(uuid));
        let all = [uuid, "0d3b0e3e-7b1c-4b5e-9a52-3f2f5b0c8a12", "uid", "uid-2", ""];
        let keys: std::collections::HashSet<_> = all.iter().map(|uid| Uid::of(uid)).collect();
        assert_eq!(keys.len(), all.len());
    }
}
