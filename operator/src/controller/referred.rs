//! The Application that an Environment or a SecretBinding refers to: what both check of it before anything else.

use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_core::wire::management::Application;

use super::verdict::{Refusal, reasons};

/// What was seen of it, in Kubernetes and on the server.
pub struct Referred<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Whether there is an object of the name.
    pub exists: bool,
    /// The owner label's value for that object.
    pub owner: &'a str,
    pub on_the_server: Option<&'a Application>,
}

impl Referred<'_> {
    /// `remedy` is what helps beside making the Application.
    pub fn must_exist(&self, remedy: &str) -> Option<Refusal> {
        if self.exists {
            return None;
        }
        let Self { namespace, name, .. } = self;
        let message = format!("namespace {namespace} has no Application `{name}`: create it, or {remedy}");
        Some(Refusal::until_it_appears(reasons::APPLICATION_NOT_FOUND, message))
    }

    /// The server's owner label has to name exactly that object; nothing that users can write counts.
    pub fn must_be_its_own_on_the_server(&self) -> Option<Refusal> {
        let owner = self.on_the_server.and_then(|found| found.labels.get(OWNER_LABEL));
        if owner.is_some_and(|owner| owner == self.owner) {
            return None;
        }
        let name = self.name;
        let message = format!("Application `{name}` is not on the server, or not its own there: see its conditions");
        Some(Refusal::until_it_appears(reasons::APPLICATION_NOT_READY, message))
    }
}
