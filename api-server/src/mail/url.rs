use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use sealpod_core::SecretText;
use url::{Host, Url};

/// Why a URL names no mail server that can be used. Never quotes it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "must be `log`, or a URL such as smtp://user:password@mail.example.com:587 (STARTTLS) or smtps://… (TLS from the start), with reserved characters of user and password percent-encoded"
    )]
    NotAUrl,
    #[error("has a user without a password, or the other way round")]
    HalfACredential,
    #[error("may end with `?tls=required` or `?tls=none` and `ca=<file>`, and with nothing else")]
    UnknownParameter,
    #[error("`tls=none` is for smtp:// only; smtps:// is TLS")]
    NoTlsInSmtps,
    #[error("would send the password in clear text; take `tls=none` away, or the user and password")]
    PasswordInClear,
}

/// Whether and how the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all: for a relay on this machine, or where `tls=none` says that the way to it is safe.
    None,
    /// By STARTTLS, which the server has to offer.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// A mail server: `smtp[s]://[user:password@]host[:port][?tls=required|none][&ca=<file>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpUrl {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub credentials: Option<(String, SecretText)>,
    /// Whether mails travel in clear text over a network.
    pub exposed: bool,
    /// File of certificates (PEM) that are trusted beside those of the system.
    pub ca: Option<PathBuf>,
}

impl SmtpUrl {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::NotAUrl)?;
        let (host, loopback) = host(&url)?;
        let (mut tls, mut ca) = (None, None);
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("tls", "required") if tls.is_none() => tls = Some(true),
                ("tls", "none") if tls.is_none() => tls = Some(false),
                ("ca", file) if !file.is_empty() && ca.is_none() => ca = Some(PathBuf::from(file)),
                _ => return Err(UrlError::UnknownParameter),
            }
        }
        let (security, port) = match (url.scheme(), tls) {
            ("smtps", Some(false)) => return Err(UrlError::NoTlsInSmtps),
            ("smtps", _) => (Security::Implicit, 465),
            ("smtp", None) if loopback => (Security::None, 25),
            ("smtp", Some(false)) => (Security::None, 25),
            ("smtp", _) => (Security::StartTls, 587),
            _ => return Err(UrlError::NotAUrl),
        };
        let credentials = credentials(&url)?;
        if credentials.is_some() && security == Security::None && !loopback {
            return Err(UrlError::PasswordInClear);
        }
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(UrlError::NotAUrl);
        }
        Ok(Self {
            host,
            port: url.port().unwrap_or(port),
            security,
            credentials,
            exposed: security == Security::None && !loopback,
            ca,
        })
    }
}

/// The host, and whether it is this machine.
fn host(url: &Url) -> Result<(String, bool), UrlError> {
    match url.host().ok_or(UrlError::NotAUrl)? {
        Host::Ipv4(ip) => Ok((ip.to_string(), ip.is_loopback())),
        Host::Ipv6(ip) => Ok((ip.to_string(), ip.is_loopback())),
        // Of a scheme that is not the web's, the host is not looked at any closer.
        Host::Domain(name) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(UrlError::NotAUrl);
            }
            let loopback = name
                .parse::<std::net::Ipv4Addr>()
                .map_or_else(|_| name.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
            Ok((name.to_ascii_lowercase(), loopback))
        }
    }
}

fn credentials(url: &Url) -> Result<Option<(String, SecretText)>, UrlError> {
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::NotAUrl)?;
        if text.chars().any(char::is_control) {
            return Err(UrlError::NotAUrl);
        }
        Ok(text.into_owned())
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) | (_, None) => Err(UrlError::HalfACredential),
        (user, Some(password)) => Ok(Some((decode(user)?, decode(password)?.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, Security) {
        let url = SmtpUrl::parse(text).unwrap();
        (url.host, url.port, url.security)
    }

    #[test]
    fn a_remote_server_is_spoken_to_under_tls_unless_it_is_said_not_to() {
        use Security as S;
        for (text, host, port, security) in [
            ("smtp://mail.example.com", "mail.example.com", 587, S::StartTls),
            ("smtp://Mail.Example.com:25/", "mail.example.com", 25, S::StartTls),
            (
                "smtp://mail.example.com?tls=required",
                "mail.example.com",
                587,
                S::StartTls,
            ),
            ("smtp://relay.mail.svc:2525?tls=none", "relay.mail.svc", 2525, S::None),
            ("smtps://mail.example.com", "mail.example.com", 465, S::Implicit),
            ("smtps://[2001:db8::1]:4465", "2001:db8::1", 4465, S::Implicit),
            ("smtp://localhost:1025", "localhost", 1025, S::None),
            ("smtp://127.0.0.1", "127.0.0.1", 25, S::None),
            ("smtp://[::1]:25", "::1", 25, S::None),
            ("smtp://localhost?tls=required", "localhost", 587, S::StartTls),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port, security), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        let url =
            SmtpUrl::parse("smtps://me%40example.com:p%3A%40%2Fss+%25@mail.example.com?ca=/etc/mail%20ca.pem").unwrap();
        let (user, password) = url.credentials.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("me@example.com", "p:@/ss+%"));
        assert_eq!(url.ca, Some(PathBuf::from("/etc/mail ca.pem")));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_url() {
        for (text, error) in [
            ("", UrlError::NotAUrl),
            ("mail.example.com", UrlError::NotAUrl),
            ("http://canary:canary@mail.example.com", UrlError::NotAUrl),
            ("smtp://", UrlError::NotAUrl),
            ("smtp://canary:canary@", UrlError::NotAUrl),
            ("smtp://canary:p%0d%0ass@mail.example.com", UrlError::NotAUrl),
            ("smtp://mail.example.com/canary", UrlError::NotAUrl),
            ("smtp://mail.example.com#canary", UrlError::NotAUrl),
            ("smtp://mail.example.com:99999", UrlError::NotAUrl),
            ("smtp://ma%20il.example.com", UrlError::NotAUrl),
            ("smtp://canary@mail.example.com", UrlError::HalfACredential),
            ("smtp://:canary@mail.example.com", UrlError::HalfACredential),
            ("smtp://mail.example.com?tls=maybe", UrlError::UnknownParameter),
            (
                "smtp://mail.example.com?tls=none&tls=required",
                UrlError::UnknownParameter,
            ),
            ("smtp://mail.example.com?canary=1", UrlError::UnknownParameter),
            ("smtps://mail.example.com?tls=none", UrlError::NoTlsInSmtps),
            (
                "smtp://canary:canary@mail.example.com?tls=none",
                UrlError::PasswordInClear,
            ),
        ] {
            assert_eq!(SmtpUrl::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn a_password_is_not_seen_by_accident() {
        let url = SmtpUrl::parse("smtps://me:canary@mail.example.com").unwrap();
        assert!(!format!("{url:?}").contains("canary"));
    }
}
