//! Members of an organization.

use reqwest::Method;
use sealpod_core::wire::people::{ChangeRole, InviteMember, Member};
use uuid::Uuid;

use super::Org;
use crate::Result;

impl Org<'_> {
    pub async fn members(&self) -> Result<Vec<Member>> {
        self.client.get(self.at(&["members"])?).await
    }

    pub async fn member(&self, user: Uuid) -> Result<Member> {
        self.client.get(self.at(&["members", &user.to_string()])?).await
    }

    pub async fn invite(&self, body: &InviteMember) -> Result<Member> {
        self.client.send(Method::POST, self.at(&["members"])?, body).await
    }

    pub async fn change_role(&self, user: Uuid, body: &ChangeRole) -> Result<Member> {
        let target = self.at(&["members", &user.to_string()])?;
        self.client.send(Method::PATCH, target, body).await
    }

    /// Removes the member and the member's rules.
    pub async fn remove_member(&self, user: Uuid) -> Result<()> {
        self.client.delete(self.at(&["members", &user.to_string()])?).await
    }
}
