//! How login codes travel: to real SMTP servers, and past those that are slow, gone or in a bad mood.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpod_api_server::app::Metrics;
use sealpod_api_server::login::{Code, Login, Signup};
use sealpod_api_server::mail::{LoginMail, Outbox, Transport};
use sealpod_core::Time;
use tokio_util::sync::CancellationToken;

use crate::login::{PACE, Site};
use crate::mail_server::{MailServer, Mood, PASSWORD, Security, USER, transport};
use crate::support::{Server, held_port, limits, logs};

const HERE: &str = "127.0.1.1";

async fn site(mail: MailServer) -> Site {
    let way = mail.transport();
    Site::with(Signup::Open, mail, way).await
}

/// Waits for something that other tasks bring about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn mail_to(to: &str, seconds: i64) -> LoginMail {
    LoginMail {
        to: to.parse().unwrap(),
        code: Code::generate(),
        ip: None,
        expires_at: Time::now().plus_seconds(seconds),
        wanted: true,
    }
}

struct Post {
    outbox: Outbox,
    registry: prometheus_client::registry::Registry,
    stop: CancellationToken,
}

impl Post {
    fn start(transport: Transport) -> Self {
        logs();
        let mut registry = sealpod_runtime::admin::registry("api-server", "test");
        let stop = CancellationToken::new();
        let (outbox, courier) = Outbox::new(transport, PACE, Metrics::register(&mut registry));
        tokio::spawn(courier.run(stop.clone()));
        Self { outbox, registry, stop }
    }

    fn has(&self, fate: &str, count: u32) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.contains(&format!("login_mails_total{{fate=\"{fate}\"}} {count}\n"))
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn codes_go_out_over_starttls_over_implicit_tls_and_in_clear_on_one_machine() {
    for security in [Security::StartTls, Security::Implicit, Security::None] {
        let site = site(MailServer::start(security).await).await;
        site.login(HERE, "ada@example.com").status(200).await;
        let mail = site.mail.next().await;
        assert_eq!(mail.encrypted, security != Security::None, "{security:?}");
        let login = (security != Security::None).then(|| (USER.to_owned(), PASSWORD.to_owned()));
        assert_eq!(mail.login, login);
        site.verify(HERE, "ada@example.com", &mail.code()).status(200).await;
    }
}

#[tokio::test]
async fn the_mail_is_plain_and_html_and_says_from_where_it_was_asked_for() {
    let site = Site::start(Signup::Open).await;
    site.login("127.0.3.7", "o'neill+tag@example.com").status(200).await;
    let mail = site.mail.next().await;
    let (head, body) = mail.text.split_once("\r\n\r\n").unwrap();
    for header in [
        "From: Sealpod <login@sealpod.example>",
        "To: o'neill+tag@example.com",
        "Auto-Submitted: auto-generated",
        "\r\nDate: ",
        "\r\nMessage-ID: <",
    ] {
        assert!(format!("\r\n{head}").contains(header), "{header} in {head}");
    }
    assert!(!head.contains(&mail.code()));
    assert_eq!(body.matches("127.0.3.7").count(), 2, "{body}");
    assert_eq!(body.matches("10 minutes").count(), 2);
    assert!(body.contains("Content-Type: text/plain") && body.contains("Content-Type: text/html"));
}

#[tokio::test]
async fn a_connection_serves_several_mails() {
    let site = site(MailServer::start(Security::StartTls).await).await;
    for _ in 0..5 {
        site.code(HERE, "ada@example.com").await;
    }
    assert_eq!(site.mail.connections(), 1);
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_gets_neither_password_nor_code() {
    for security in [Security::StartTls, Security::Implicit] {
        let mail = MailServer::start(security).await;
        let (url, _) = mail
            .url()
            .replace('&', "?")
            .rsplit_once("?ca=")
            .map(|(url, ca)| (url.to_owned(), ca.to_owned()))
            .unwrap();
        let post = Post::start(transport(&url));
        post.outbox.post(mail_to("ada@example.com", 1));
        until("it is given up", || post.has("failed", 1)).await;
        assert!(mail.is_empty().await && mail.connections() > 0);
        assert_eq!(mail.asked(), 0);
    }
}

#[tokio::test]
async fn a_server_that_hides_starttls_gets_neither_password_nor_code() {
    let mail = MailServer::start(Security::None).await;
    let url = format!("smtp://me:canary@localhost:{}?tls=required", mail.port);
    let post = Post::start(transport(&url));
    post.outbox.post(mail_to("ada@example.com", 1));
    until("it is given up", || post.has("failed", 1)).await;
    assert!(mail.is_empty().await && mail.asked() == 0 && mail.connections() > 0);
}

#[tokio::test]
async fn a_mail_server_that_is_down_changes_no_answer_and_gets_the_mail_once_it_is_up() {
    let (_held, port) = held_port();
    let url = format!("smtp://localhost:{port}");
    let elsewhere = MailServer::start(Security::None).await;
    let site = Site::with(Signup::Open, elsewhere, transport(&url)).await;
    let answer = site.login(HERE, "ada@example.com").status(200).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mail = MailServer::on(port, Security::None).await;
    let code = mail.next().await.code();
    site.verify(HERE, "ada@example.com", &code).status(200).await;
    let answer_when_up = site.login(HERE, "ada@example.com").status(200).await;
    assert_eq!(answer.text, answer_when_up.text);
}

#[tokio::test]
async fn a_mail_server_that_says_nothing_holds_up_nobody() {
    let site = site(MailServer::start(Security::None).await).await;
    site.mail.mood(Mood::Silent);
    for n in 0..8 {
        site.login(HERE, &format!("{n}@example.com")).status(200).await;
    }
    until("it is asked", || site.mail.connections() >= 4).await;
    site.mail.mood(Mood::Good);
    // More than are sent at a time: those that were cut off come again, and the others after them.
    let mut got = vec![];
    for _ in 0..8 {
        got.push(site.mail.next().await.to);
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 8, "{got:?}");
}

#[tokio::test]
async fn what_is_refused_for_now_comes_later_and_what_is_refused_for_good_does_not() {
    let mail = MailServer::start(Security::None).await;
    let post = Post::start(mail.transport());
    mail.mood(Mood::Refuses("451"));
    post.outbox.post(mail_to("later@example.com", 600));
    until("it is tried again", || mail.asked() >= 2).await;
    assert!(mail.is_empty().await);
    mail.mood(Mood::Good);
    assert_eq!(mail.next().await.to, "later@example.com");

    mail.mood(Mood::Refuses("550"));
    let asked = mail.asked();
    post.outbox.post(mail_to("never@example.com", 600));
    until("it is given up", || post.has("failed", 1)).await;
    assert_eq!(mail.asked(), asked + 1);
    mail.mood(Mood::Good);
    post.outbox.post(mail_to("next@example.com", 600));
    assert_eq!(mail.next().await.to, "next@example.com");
    until("both are counted", || post.has("sent", 2)).await;
}

#[tokio::test]
async fn a_mail_is_tried_for_no_longer_than_its_code_lives() {
    let mail = MailServer::start(Security::None).await;
    let post = Post::start(mail.transport());
    mail.mood(Mood::Refuses("451"));
    post.outbox.post(mail_to("ada@example.com", 1));
    until("it is given up", || post.has("failed", 1)).await;
    assert!(mail.asked() > 2);
}

#[tokio::test]
async fn a_full_queue_refuses_without_waiting() {
    let mail = MailServer::start(Security::None).await;
    let mut registry = sealpod_runtime::admin::registry("api-server", "test");
    // Nobody runs the courier.
    let (outbox, courier) = Outbox::new(mail.transport(), PACE, Metrics::register(&mut registry));
    for n in 0..1_010 {
        outbox.post(mail_to(&format!("{n}@example.com"), 600));
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("login_mails_total{fate=\"refused\"} 10\n"), "{text}");
    drop(courier);
}

#[tokio::test]
async fn stopping_finishes_the_mail_that_is_on_its_way() {
    let mail = MailServer::start(Security::None).await;
    let mut registry = sealpod_runtime::admin::registry("api-server", "test");
    let (outbox, courier) = Outbox::new(mail.transport(), PACE, Metrics::register(&mut registry));
    let stop = CancellationToken::new();
    let task = tokio::spawn(courier.run(stop.clone()));
    outbox.post(mail_to("ada@example.com", 600));
    until("it is being sent", || mail.connections() > 0).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(mail.next().await.to, "ada@example.com");
}

/// Every failure above and below logs something; none of it says whose mail it was, or what was in it.
#[tokio::test]
async fn neither_codes_nor_addresses_nor_the_password_are_logged() {
    let site = site(MailServer::start(Security::StartTls).await).await;
    site.mail.mood(Mood::Refuses("451"));
    site.login(HERE, "quiet-canary@example.com").status(200).await;
    until("it is tried again", || site.mail.asked() >= 2).await;
    site.mail.mood(Mood::Good);
    let code = site.mail.next().await.code();
    site.verify(HERE, "quiet-canary@example.com", "wrong-canary")
        .status(401)
        .await;
    site.mail.mood(Mood::Refuses("550"));
    site.login(HERE, "quiet-canary@example.com").status(200).await;
    until("it is refused", || logs().contains("550")).await;
    let logged = logs();
    assert!(logged.contains("could not be sent yet") && logged.contains("answered 451"));
    for secret in [
        "quiet-canary",
        "wrong-canary",
        PASSWORD,
        &format!("code={code}"),
        &format!("\"{code}\""),
    ] {
        assert!(!logged.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn for_trying_out_the_code_is_in_the_log() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let key = sealpod_api_server::crypto::generate_master_key();
    let server = Server::build(
        dir,
        key.expose(),
        |_| {},
        limits(),
        |metrics, stop| {
            let (outbox, courier) = Outbox::new(Transport::Log, PACE, metrics.clone());
            tokio::spawn(courier.run(stop.clone()));
            Login::new(Signup::Open, Some(outbox))
        },
    )
    .await;
    let body = serde_json::json!({"email": "printed@example.com"});
    server.call("POST", "/api/auth/login").json(body).status(200).await;
    let line = || {
        logs()
            .lines()
            .find(|line| line.contains("to=printed@example.com"))
            .map(str::to_owned)
    };
    until("it is printed", || line().is_some()).await;
    let line = line().unwrap();
    assert!(line.contains(" INFO "), "{line}");
    let code = line
        .split("code=\"")
        .nth(1)
        .and_then(|rest| rest.get(..6))
        .unwrap()
        .to_owned();
    let body = serde_json::json!({"email": "printed@example.com", "code": code});
    server.call("POST", "/api/auth/verify").json(body).status(200).await;
}
