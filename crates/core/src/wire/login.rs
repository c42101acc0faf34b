//! Bodies of `POST /api/auth/login` and `POST /api/auth/verify`.

use serde::{Deserialize, Serialize};

use crate::redacted::SecretText;
use crate::{Email, Time};

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// `POST /api/auth/login`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RequestCode {
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::EmailAddress))]
    pub email: Email,
}

/// Answer to `POST /api/auth/login`: the same whether the address is known or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct CodeRequested {
    pub message: String,
}

/// `POST /api/auth/verify`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VerifyCode {
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::EmailAddress))]
    pub email: Email,
    /// The six digits of the mail; white space in it is ignored.
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::LoginCode))]
    pub code: SecretText,
}

/// Answer to `POST /api/auth/verify`: a session, for `Authorization: Bearer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SessionBegun {
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::SessionKey))]
    pub token: SecretText,
    pub expires_at: Time,
}
