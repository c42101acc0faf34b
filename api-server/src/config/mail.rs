//! The settings of logins by e-mail code.

use super::{Environment, Faults};
use crate::login::Signup;
use crate::mail::{Smtp, SmtpUrl, Transport};

/// Never a flag: it may hold a password.
pub const SMTP_URL: &str = "SEALPOD_SMTP_URL";
pub const SMTP_FROM: &str = "SEALPOD_SMTP_FROM";
pub const SIGNUP: &str = "SEALPOD_SIGNUP";
/// The value of [`SMTP_URL`] by which codes go to the log.
pub const LOG: &str = "log";

pub fn signup(text: &str, faults: &mut Faults) -> Option<Signup> {
    let signup = match text {
        "open" | "" => Ok(Signup::Open),
        "invited" => Ok(Signup::Invited),
        _ => Err("must be `open` or `invited`"),
    };
    faults.check(SIGNUP, signup)
}

#[allow(
    clippy::option_option,
    reason = "the outer one says whether the setting could be read"
)]
pub fn transport(from: Option<String>, environment: &Environment, faults: &mut Faults) -> Option<Option<Transport>> {
    // Trimmed, as files and secrets of it often end with a line break.
    let url = match environment.get(SMTP_URL).map(str::trim) {
        None => return Some(None),
        Some(LOG) => return Some(Some(Transport::Log)),
        Some(url) => faults.check(SMTP_URL, SmtpUrl::parse(url)),
    };
    let Some(from) = from else {
        faults.add(
            SMTP_FROM,
            "is needed beside SEALPOD_SMTP_URL: the address that login codes come from",
        );
        return None;
    };
    let from = faults.check(SMTP_FROM, Smtp::sender(&from));
    let smtp = faults.check(SMTP_URL, Smtp::new(url?, from?))?;
    Some(Some(Transport::Smtp(Box::new(smtp))))
}
