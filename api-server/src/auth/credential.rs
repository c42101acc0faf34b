//! Credentials as requests present them, and whose they are.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sealpod_core::SecretText;
use sealpod_core::wire::headers::API_KEY;

use super::Plane;
use crate::app::App;
use crate::audit::ActorKind;
use crate::crypto::{ApiKey, ApiKeyKind, SessionToken};
use crate::error::ApiError;
use crate::store::{AccountKey, ApplicationKey, KeyHolder, Session};

/// Most credentials of one request that are looked at: no honest caller sends more than one.
const MAX_PRESENTED: usize = 4;

/// A credential that somebody sent, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    Bearer(SecretText),
    Key(SecretText),
}

/// Whose a valid credential is.
pub enum Principal {
    AdminKey,
    User(Box<Session>),
    Account(Arc<AccountKey>),
    Application(Arc<ApplicationKey>),
}

impl Presented {
    /// The credential itself.
    pub fn text(&self) -> &str {
        match self {
            Self::Bearer(text) | Self::Key(text) => text.expose(),
        }
    }

    /// The principal, or none where the credential is unknown, expired or revoked. Told apart by their form first, so
    /// no look-up ever finds a key of another kind.
    pub async fn resolve(&self, app: &App) -> Result<Option<Principal>, ApiError> {
        let key = match self {
            Self::Bearer(token) => return bearer(app, token.expose()).await,
            Self::Key(text) => ApiKey::parse(text.expose()),
        };
        let Some(key) = key else { return Ok(None) };
        let holder = app.store().find_key(app.store().pepper().digest(&key)).await?;
        Ok(match (key.kind(), holder) {
            (ApiKeyKind::ServiceAccount, Some(KeyHolder::Account(account))) => Some(Principal::Account(account)),
            (ApiKeyKind::Application, Some(KeyHolder::Application(application))) => {
                Some(Principal::Application(application))
            }
            (_, _) => None,
        })
    }
}

async fn bearer(app: &App, token: &str) -> Result<Option<Principal>, ApiError> {
    let Some(token) = SessionToken::parse(token) else {
        return Ok(app.admin_keys().accept(token).then_some(Principal::AdminKey));
    };
    let session = app.store().find_session(token.digest(app.store().pepper())).await?;
    Ok(session.map(|session| Principal::User(session.into())))
}

impl Principal {
    pub fn kind(&self) -> ActorKind {
        match self {
            Self::AdminKey => ActorKind::AdminKey,
            Self::User(_) => ActorKind::User,
            Self::Account(_) => ActorKind::ServiceAccount,
            Self::Application(_) => ActorKind::Application,
        }
    }

    fn is_of(&self, plane: Plane) -> bool {
        match (self, plane) {
            (Self::AdminKey, Plane::Management | Plane::Organization)
            | (Self::User(_) | Self::Account(_), Plane::Organization)
            | (Self::Application(_), Plane::Consumer) => true,
            (Self::AdminKey | Self::User(_) | Self::Account(_) | Self::Application(_), _) => false,
        }
    }
}

/// The one valid credential of a request, if it is one of `plane`.
pub async fn authenticate(app: &App, plane: Plane, headers: &HeaderMap) -> Result<(Presented, Principal), ApiError> {
    let presented = presented(headers);
    if presented.len() > MAX_PRESENTED {
        return Err(ApiError::Unauthorized);
    }
    let mut valid = None;
    for credential in presented {
        if let Some(principal) = credential.resolve(app).await?
            && valid.replace((credential, principal)).is_some()
        {
            return Err(ApiError::Malformed(
                "the request has two different valid credentials; send one".into(),
            ));
        }
    }
    valid
        .filter(|(_, principal)| principal.is_of(plane))
        .ok_or(ApiError::Unauthorized)
}

/// Every different credential in the headers.
fn presented(headers: &HeaderMap) -> Vec<Presented> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| Presented::Bearer(SecretText::new(token.trim())))
    });
    let keys = headers
        .get_all(API_KEY)
        .iter()
        .filter_map(|value| Some(Presented::Key(SecretText::new(value.to_str().ok()?.trim()))));
    let mut all: Vec<Presented> = Vec::new();
    for credential in bearers.chain(keys) {
        if !all.contains(&credential) {
            all.push(credential);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn of(pairs: &[(&str, &str)]) -> Vec<Presented> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        presented(&headers)
    }

    #[test]
    fn names_and_the_word_bearer_are_case_insensitive() {
        let token = Presented::Bearer(SecretText::new("Token"));
        for value in ["Bearer Token", "bearer Token", "BEARER   Token "] {
            assert_eq!(of(&[("AUTHORIZATION", value)]), std::slice::from_ref(&token), "{value}");
        }
        assert_eq!(of(&[("X-API-Key", "k")]), [Presented::Key(SecretText::new("k"))]);
        for other in ["Basic Token", "Bearer", "Token", ""] {
            assert!(of(&[("authorization", other)]).is_empty(), "{other}");
        }
    }

    #[test]
    fn the_same_credential_twice_is_one() {
        assert_eq!(of(&[("x-api-key", "k"), ("x-api-key", "k")]).len(), 1);
        assert_eq!(
            of(&[("x-api-key", "k"), ("x-api-key", "l"), ("authorization", "Bearer k")]).len(),
            3
        );
    }

    proptest::proptest! {
        /// Whatever bytes a header has: never a panic, and never more credentials than headers.
        #[test]
        fn any_header_is_read(
            lines in proptest::collection::vec((proptest::bool::ANY, proptest::collection::vec(1u8.., 0..40)), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for (is_key, bytes) in &lines {
                let name = if *is_key { API_KEY.parse().unwrap() } else { header::AUTHORIZATION };
                if let Ok(value) = HeaderValue::from_bytes(bytes) {
                    headers.append(name, value);
                }
            }
            let found = presented(&headers);
            proptest::prop_assert!(found.len() <= headers.len());
            for credential in found {
                // What is no key by its form is never looked up.
                let _ = ApiKey::parse(credential.text()).is_some() || SessionToken::parse(credential.text()).is_some();
            }
        }

        #[test]
        fn only_the_exact_form_of_a_key_is_one(text in "(cr_sa_|grm_|CR_SA_)?[0-9a-fA-Fg]{38,42}( |\n)?") {
            let body = text.strip_prefix("cr_sa_").or_else(|| text.strip_prefix("grm_"));
            let exact = body.is_some_and(|hex| {
                hex.len() == 40 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            });
            proptest::prop_assert_eq!(ApiKey::parse(&text).is_some(), exact);
        }
    }
}
