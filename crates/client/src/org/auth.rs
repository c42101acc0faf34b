//! Signing in and out.

use reqwest::Method;
use sealpod_core::wire::login::{CodeRequested, RequestCode, SessionBegun, VerifyCode};
use sealpod_core::wire::people::Profile;

use crate::path::path;
use crate::{Client, Result};

impl Client {
    /// Has a code sent to the address; the answer is the same whether anybody has it. Needs no credential.
    pub async fn request_code(&self, body: &RequestCode) -> Result<CodeRequested> {
        let call = self.call(Method::POST, path(["api", "auth", "login"])?);
        call.once().send_json(body).await?.json()
    }

    /// Exchanges the code for a session: [`crate::Credential::Session`]. Needs no credential.
    pub async fn verify_code(&self, body: &VerifyCode) -> Result<SessionBegun> {
        let call = self.call(Method::POST, path(["api", "auth", "verify"])?);
        call.once().send_json(body).await?.json()
    }

    /// Who signed in.
    pub async fn me(&self) -> Result<Profile> {
        self.get(path(["api", "auth", "me"])?).await
    }

    /// Ends the session that this client calls with.
    pub async fn logout(&self) -> Result<()> {
        self.delete(path(["api", "auth", "logout"])?).await
    }
}
