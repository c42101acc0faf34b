//! The people who may do everything, by address.

use std::collections::BTreeSet;
use std::str::FromStr;

use sealpod_core::Email;
use sealpod_core::email::EmailError;

/// A list of addresses, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Superadmins(BTreeSet<Email>);

impl Superadmins {
    pub fn contain(&self, email: &str) -> bool {
        // Both are in the one form that `Email` gives them.
        self.0.iter().any(|one| one.as_str() == email)
    }
}

impl FromStr for Superadmins {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, EmailError> {
        let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
        addresses.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_by_address_whatever_the_spelling() {
        let superadmins: Superadmins = " Ada@Example.com , bob@example.com,".parse().unwrap();
        assert!(superadmins.contain("ada@example.com") && superadmins.contain("bob@example.com"));
        assert!(!superadmins.contain("eve@example.com") && !superadmins.contain(""));
        assert_eq!("".parse(), Ok(Superadmins::default()));
        assert!("ada@example.com bob@example.com".parse::<Superadmins>().is_err());
    }
}
