//! What the mail says.

use data_encoding::HEXLOWER;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};

use super::LoginMail;
use crate::crypto::random;
use crate::store::CODE_SECONDS;

/// That a program wrote this and nobody's holiday note should answer it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The mail for a code; `None` where its address is none that mail can go to. The code stands in the body only:
/// subjects are shown on locked screens and kept in mail servers' logs.
pub(super) fn compose(from: &Mailbox, mail: &LoginMail) -> Option<Message> {
    let to: Address = mail.to.as_str().parse().ok()?;
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject("Your Sealpod login code")
        .date_now()
        .message_id(Some(format!(
            "<{}@{}>",
            HEXLOWER.encode(random::<16>().as_slice()),
            from.email.domain()
        )))
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(plain(mail), html(mail)))
        .ok()
}

fn origin(mail: &LoginMail) -> String {
    // An address prints as digits, letters, dots and colons: nothing that HTML would take for itself.
    mail.ip
        .map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_canonical().to_string())
}

fn plain(mail: &LoginMail) -> String {
    let (code, minutes, origin) = (mail.code.expose(), CODE_SECONDS / 60, origin(mail));
    let until = until(mail);
    format!(
        "Your Sealpod login code is

    {code}

It is valid for {minutes} minutes, until {until}, and can be used once.

It was requested from {origin}. If that was not you,
ignore this mail: nobody can sign in without the code. Give it to nobody,
not even to somebody who says they work for Sealpod.
"
    )
}

fn html(mail: &LoginMail) -> String {
    let (code, minutes, origin) = (mail.code.expose(), CODE_SECONDS / 60, origin(mail));
    let until = until(mail);
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Your Sealpod login code</title></head>
<body style="font-family: sans-serif; color: #1a1a1a; max-width: 32em">
<p>Your <strong>Sealpod</strong> login code is</p>
<p style="font-family: monospace; font-size: 2em; letter-spacing: 0.2em">{code}</p>
<p>It is valid for {minutes} minutes, until {until}, and can be used once.</p>
<p>It was requested from {origin}. If that was not you, ignore this mail: nobody can sign in without the code. Give it to nobody, not even to somebody who says they work for Sealpod.</p>
</body>
</html>
"#
    )
}

/// To the minute, in UTC: `2026-11-22 09:41 UTC`.
fn until(mail: &LoginMail) -> String {
    let text = mail.expires_at.to_string();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

#[cfg(test)]
mod tests {
    use sealpod_core::Time;

    use super::*;
    use crate::login::Code;

    fn mail() -> LoginMail {
        LoginMail {
            to: "o'neill+x@example.com".parse().unwrap(),
            code: Code::parse("012345").unwrap(),
            ip: Some("::ffff:203.0.113.7".parse().unwrap()),
            expires_at: "2026-11-22T09:41:59.123Z".parse::<Time>().unwrap(),
            wanted: true,
        }
    }

    #[test]
    fn both_forms_say_who_for_how_long_and_from_where() {
        let mail = mail();
        for text in [plain(&mail), html(&mail)] {
            for part in [
                "Sealpod",
                "012345",
                "10 minutes",
                "2026-11-22 09:41 UTC",
                "from 203.0.113.7",
                "ignore this mail",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert!(text.is_ascii());
        }
    }

    #[test]
    fn the_headers_are_those_of_an_automatic_mail_and_hold_no_code() {
        let from: Mailbox = "Sealpod <login@sealpod.example>".parse().unwrap();
        let text = String::from_utf8(compose(&from, &mail()).unwrap().formatted()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for header in [
            "From: Sealpod <login@sealpod.example>",
            "To: o'neill+x@example.com",
            "Subject: Your Sealpod login code",
            "Auto-Submitted: auto-generated",
            "Date: ",
            "Message-ID: <",
            "MIME-Version: 1.0",
            "Content-Type: multipart/alternative",
        ] {
            assert!(head.contains(header), "{header} in {head}");
        }
        assert!(head.contains("@sealpod.example>") && !head.contains("012345"));
        assert!(body.contains("text/plain") && body.contains("text/html"));
    }
}
