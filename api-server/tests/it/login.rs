//! Login by e-mail code: who gets one, what it is good for, and what bounds guessing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sealpod_api_server::audit::{Chain, StoredEntry};
use sealpod_api_server::crypto::generate_master_key;
use sealpod_api_server::login::{Login, Signup};
use sealpod_api_server::mail::{Outbox, Pace, Transport};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mail_server::{MailServer, Security};
use crate::support::{Call, Reply, SUPERADMIN, Server, burst, limits};

const LOGIN: &str = "/api/auth/login";
const VERIFY: &str = "/api/auth/verify";
/// Addresses of this machine in networks of their own.
const HERE: &str = "127.0.1.1";
const NEXT_DOOR: &str = "127.0.1.99";
const FAR: &str = "127.0.2.1";
/// Fast enough for a test.
pub const PACE: Pace = Pace {
    attempt: Duration::from_millis(500),
    first: Duration::from_millis(50),
    longest: Duration::from_millis(100),
};

/// A server, and the mail server that its codes go to.
pub struct Site {
    pub server: Server,
    pub mail: MailServer,
    dir: Arc<TempDir>,
    master_key: String,
}

impl Site {
    pub async fn start(signup: Signup) -> Self {
        let mail = MailServer::start(Security::None).await;
        let transport = mail.transport();
        Self::with(signup, mail, transport).await
    }

    pub async fn with(signup: Signup, mail: MailServer, transport: Transport) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let master_key = generate_master_key().expose().to_owned();
        let server = serve(&dir, &master_key, signup, transport).await;
        Self {
            server,
            mail,
            dir,
            master_key,
        }
    }

    /// The same database under a new process.
    async fn restart(&mut self) {
        self.restart_as(Signup::Open).await;
    }

    async fn restart_as(&mut self, signup: Signup) {
        self.server.stop.cancel();
        self.server.store.close().await;
        let transport = self.mail.transport();
        self.server = serve(&self.dir, &self.master_key, signup, transport).await;
    }

    pub fn login(&self, ip: &str, email: &str) -> Call {
        self.server.call_from(ip, "POST", LOGIN).json(json!({"email": email}))
    }

    pub fn verify(&self, ip: &str, email: &str, code: &str) -> Call {
        self.server
            .call_from(ip, "POST", VERIFY)
            .json(json!({"email": email, "code": code}))
    }

    /// Asks for a code and takes it out of the mail.
    pub async fn code(&self, ip: &str, email: &str) -> String {
        self.login(ip, email).status(200).await;
        self.mail.next().await.code()
    }

    pub async fn sign_in(&self, ip: &str, email: &str) -> String {
        let code = self.code(ip, email).await;
        self.verify(ip, email, &code).status(200).await.text_at("token")
    }

    async fn invite(&self, email: &str) {
        self.server
            .admin("POST", "/api/orgs/default/members")
            .json(json!({"email": email, "role": "member"}))
            .status(201)
            .await;
    }

    /// What ran in the database for this call.
    async fn statements(&self, call: Call) -> (Reply, Vec<String>) {
        self.server.statements.take();
        let reply = call.send().await;
        let mut statements = self.server.statements.take();
        // The log is looked after once the answer is on its way.
        statements.retain(|sql| !sql.starts_with("PRAGMA wal_checkpoint"));
        (reply, statements)
    }

    async fn audit(&self) -> Vec<StoredEntry> {
        self.server.store.audit_entries(Chain::Instance, 100).await.unwrap()
    }

    /// As an administrator with a shell on the database.
    fn sql(&self, sql: &str) -> usize {
        let other = rusqlite::Connection::open(self.dir.path().join("sealpod.db")).unwrap();
        other.busy_timeout(Duration::from_secs(5)).unwrap();
        other.execute(sql, []).unwrap()
    }

    fn count(&self, table: &str) -> u32 {
        let other = rusqlite::Connection::open(self.dir.path().join("sealpod.db")).unwrap();
        other
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    }
}

async fn serve(dir: &Arc<TempDir>, master_key: &str, signup: Signup, transport: Transport) -> Server {
    Server::build(
        Arc::clone(dir),
        master_key,
        |_| {},
        limits(),
        |metrics, stop| {
            let (outbox, courier) = Outbox::new(transport, PACE, metrics.clone());
            tokio::spawn(courier.run(stop.clone()));
            Login::new(signup, Some(outbox))
        },
    )
    .await
}

/// A code that is not this one.
fn other(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

#[tokio::test]
async fn a_code_from_the_mail_makes_a_session_and_the_user() {
    let site = Site::start(Signup::Open).await;
    let asked = site.login(HERE, "ada@example.com").status(200).await;
    assert!(asked.text_at("message").contains("10 minutes"));
    let mail = site.mail.next().await;
    assert_eq!(mail.to, "ada@example.com");
    assert!(mail.text.contains(HERE), "{}", mail.text);

    let begun = site.verify(HERE, "ada@example.com", &mail.code()).status(200).await;
    let (token, expires) = (begun.text_at("token"), begun.text_at("expires_at"));
    assert!(
        token.starts_with("cr_session_") && token.len() == 11 + 64,
        "30 days of trust in 256 bits"
    );
    let days = |days: i64| crate::support::time(days * 24 * 3_600 * 1_000);
    assert!(days(29) < expires && expires < days(31), "{expires}");
    let me = site.server.call("GET", "/api/auth/me").bearer(&token).status(200).await;
    assert_eq!(
        (&me.body["email"], &me.body["is_superadmin"]),
        (&json!("ada@example.com"), &json!(false))
    );

    let entry = &site.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.outcome.as_str()),
        ("session.login", "success")
    );
    assert_eq!(
        (entry.actor_type.as_str(), entry.actor_name.as_str()),
        ("user", "ada@example.com")
    );
    assert_eq!(entry.actor_id.unwrap().to_string(), me.text_at("id"));
    assert_eq!(entry.ip.as_deref(), Some(HERE));

    // The next login finds the same user.
    let again = site.sign_in(HERE, "ada@example.com").await;
    let me_again = site.server.call("GET", "/api/auth/me").bearer(&again).status(200).await;
    assert_eq!(me.body, me_again.body);
}

#[tokio::test]
async fn nothing_that_is_answered_or_run_tells_a_known_address_from_an_unknown_one() {
    for signup in [Signup::Open, Signup::Invited] {
        let site = Site::start(signup).await;
        site.invite("known@example.com").await;
        site.sign_in(HERE, "known@example.com").await;
        site.invite("invited@example.com").await;
        let mut seen = HashMap::new();
        for email in [
            "known@example.com",
            "unknown@example.com",
            "invited@example.com",
            SUPERADMIN,
            "x@no-such-domain",
            "very.odd+but/valid=a@xn--bcher-kva.example",
        ] {
            let (reply, statements) = site.statements(site.login(FAR, email)).await;
            assert_eq!(reply.status, 200);
            assert!(
                statements.iter().any(|sql| sql.contains("FROM users")),
                "{statements:?}"
            );
            let mut headers: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
            headers.sort();
            // Nor do the answers to wrong codes.
            let (wrong, wrong_statements) = site.statements(site.verify(FAR, email, "12345")).await;
            assert_eq!(wrong.status, 401);
            seen.insert((reply.text, headers, statements, wrong.text, wrong_statements), email);
        }
        assert_eq!(seen.len(), 1, "{seen:#?}");
    }
}

#[tokio::test]
async fn limits_tell_nothing_either() {
    let site = Site::start(Signup::Invited).await;
    site.invite("known@example.com").await;
    let mut seen = HashMap::new();
    for email in ["known@example.com", "unknown@example.com"] {
        for _ in 0..5 {
            site.login(FAR, email).status(200).await;
        }
        let (reply, statements) = site.statements(site.login(FAR, email)).await;
        assert_eq!(reply.status, 429);
        let seconds: u32 = reply.header("retry-after").parse().unwrap();
        assert!((890..=900).contains(&seconds), "{seconds}");
        seen.insert((reply.text, statements), email);
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
}

#[tokio::test]
async fn only_who_was_invited_gets_a_mail_where_signup_is_closed() {
    let site = Site::start(Signup::Invited).await;
    site.invite("ada@example.com").await;
    site.login(HERE, "stranger@example.com").status(200).await;
    // One courier takes them in order, so the stranger's would have come first.
    let code = site.code(HERE, "ada@example.com").await;
    let token = site
        .verify(HERE, "ada@example.com", &code)
        .status(200)
        .await
        .text_at("token");
    let orgs = site.server.call("GET", "/api/orgs").bearer(&token).status(200).await;
    assert_eq!(orgs.list()[0]["role"], "member");
    let root = site.sign_in(HERE, SUPERADMIN).await;
    let me = site.server.call("GET", "/api/auth/me").bearer(&root).status(200).await;
    assert_eq!(me.body["is_superadmin"], true);
    assert!(site.mail.is_empty().await && site.mail.asked() == 2);
}

#[tokio::test]
async fn who_was_removed_from_every_organization_is_a_stranger_where_signup_is_closed() {
    let site = Site::start(Signup::Invited).await;
    let acme = json!({"name": "acme"});
    site.server.admin("POST", "/api/orgs").json(acme).status(201).await;
    site.invite("ada@example.com").await;
    let also = site.server.admin("POST", "/api/orgs/acme/members");
    let also = also.json(json!({"email": "ada@example.com", "role": "member"}));
    let ada = also.status(201).await.text_at("user_id");
    let remove = async |organization: &str| {
        let path = format!("/api/orgs/{organization}/members/{ada}");
        site.server.admin("DELETE", &path).status(204).await;
    };
    remove("default").await;
    let code = site.code(HERE, "ada@example.com").await;
    // One who was let go while a code was under way.
    site.server.admin("DELETE", "/api/orgs/acme").status(204).await;
    let refused = site.verify(HERE, "ada@example.com", &code);
    refused.problem(401, "unauthorized").await;
    site.login(HERE, "ada@example.com").status(200).await;
    let token = site.sign_in(HERE, SUPERADMIN).await;
    assert!(site.mail.is_empty().await && site.mail.asked() == 2, "none for her");
    let me = site.server.call("GET", "/api/auth/me").bearer(&token);
    me.status(200).await;
    site.invite("ada@example.com").await;
    site.sign_in(HERE, "ada@example.com").await;
}

#[tokio::test]
async fn a_code_works_once() {
    let site = Site::start(Signup::Open).await;
    let code = site.code(HERE, "ada@example.com").await;
    site.verify(HERE, "ada@example.com", &code).status(200).await;
    let used = site
        .verify(HERE, "ada@example.com", &code)
        .problem(401, "unauthorized")
        .await;
    let never = site
        .verify(HERE, "bob@example.com", &code)
        .problem(401, "unauthorized")
        .await;
    let malformed = site
        .verify(HERE, "bob@example.com", "abc")
        .problem(401, "unauthorized")
        .await;
    assert!(used.text == never.text && never.text == malformed.text);
    assert_eq!(used.header("www-authenticate"), malformed.header("www-authenticate"));
}

#[tokio::test]
async fn a_success_ends_every_other_code_of_the_address() {
    let site = Site::start(Signup::Open).await;
    let first = site.code(HERE, "ada@example.com").await;
    let second = site.code(FAR, "ada@example.com").await;
    site.verify(HERE, "ada@example.com", &second).status(200).await;
    site.verify(HERE, "ada@example.com", &first).status(401).await;
    assert_eq!(site.count("login_codes"), 0);
}

#[tokio::test]
async fn a_code_is_good_for_its_own_address_only() {
    let site = Site::start(Signup::Open).await;
    let code = site.code(HERE, "ada@example.com").await;
    site.login(HERE, "eve@example.com").status(200).await;
    site.mail.next().await;
    site.verify(FAR, "eve@example.com", &code).status(401).await;
    site.verify(FAR, "ada@example.com", &code).status(200).await;

    // Nor does it help to move its row.
    let code = site.code(HERE, "bob@example.com").await;
    site.login(HERE, "eve@example.com").status(200).await;
    site.mail.next().await;
    let moved = "UPDATE login_codes SET address = (SELECT address FROM login_codes ORDER BY id DESC LIMIT 1)";
    assert!(site.sql(moved) >= 2);
    site.verify(FAR, "eve@example.com", &code).status(401).await;
}

#[tokio::test]
async fn a_code_dies_after_ten_minutes_and_a_clock_set_back_revives_none() {
    let site = Site::start(Signup::Open).await;
    let code = site.code(HERE, "ada@example.com").await;
    let now = sealpod_core::Time::now().microseconds();
    let minutes = |n: i64| now + n * 60_000_000;
    let lives = format!("expires_at BETWEEN {} AND {}", minutes(9), minutes(11));
    assert_eq!(
        site.sql(&format!("UPDATE login_codes SET expires_at = {now} WHERE {lives}")),
        1
    );
    site.verify(FAR, "ada@example.com", &code).status(401).await;

    let code = site.code(HERE, "ada@example.com").await;
    // As it would be had it been made a year ahead.
    site.sql(&format!("UPDATE login_codes SET expires_at = {}", minutes(525_600)));
    site.verify(FAR, "ada@example.com", &code).status(401).await;
}

#[tokio::test]
async fn one_wrong_guess_from_the_network_that_asked_kills_the_code() {
    let site = Site::start(Signup::Open).await;
    let code = site.code(HERE, "ada@example.com").await;
    site.verify(NEXT_DOOR, "ada@example.com", &other(&code))
        .status(401)
        .await;
    site.verify(HERE, "ada@example.com", &code).status(401).await;
    site.sign_in(HERE, "ada@example.com").await;
}

#[tokio::test]
async fn five_wrong_guesses_from_elsewhere_kill_a_code_and_four_do_not() {
    let site = Site::start(Signup::Open).await;
    for (guesses, status) in [(4, 200), (5, 401)] {
        let code = site.code(HERE, "ada@example.com").await;
        for _ in 0..guesses {
            site.verify(FAR, "ada@example.com", &other(&code)).status(401).await;
        }
        site.verify(HERE, "ada@example.com", &code).status(status).await;
    }
}

#[tokio::test]
async fn an_address_has_at_most_three_live_codes() {
    let site = Site::start(Signup::Open).await;
    let mut codes = vec![];
    for _ in 0..4 {
        codes.push(site.code(HERE, "ada@example.com").await);
    }
    assert_eq!(site.count("login_codes"), 3);
    site.verify(FAR, "ada@example.com", &codes[0]).status(401).await;
    site.verify(FAR, "ada@example.com", &codes[1]).status(200).await;
}

#[tokio::test]
async fn who_asks_from_afar_pushes_nobody_elses_code_out() {
    let site = Site::start(Signup::Open).await;
    site.sign_in(HERE, "ada@example.com").await;
    let code = site.code(HERE, "ada@example.com").await;
    for network in 2..8 {
        for _ in 0..3 {
            site.login(&format!("127.0.{network}.1"), "ada@example.com")
                .status(200)
                .await;
        }
    }
    site.verify(HERE, "ada@example.com", &code).status(200).await;
}

#[tokio::test]
async fn logins_are_bounded_by_network_and_by_address_and_a_familiar_network_gets_through() {
    let site = Site::start(Signup::Open).await;
    site.sign_in(HERE, "ada@example.com").await;
    // The login above is one of the thirty, and one of the five here.
    for network in 2..8 {
        let ip = format!("127.0.{network}.1");
        for n in 0..5 {
            let status = if network == 7 && n == 4 { 429 } else { 200 };
            site.login(&ip, "ada@example.com").status(status).await;
        }
        site.login(&format!("127.0.{network}.77"), "ada@example.com")
            .problem(429, "rate_limited")
            .await;
    }
    site.login("127.0.9.1", "ada@example.com").status(429).await;
    site.login("127.0.9.1", "bob@example.com").status(200).await;
    // Everybody far away together has not locked her out where she signs in as ever.
    for _ in 0..4 {
        site.login(NEXT_DOOR, "ada@example.com").status(200).await;
    }
    site.login(HERE, "ada@example.com").status(429).await;
}

#[tokio::test]
async fn ten_failures_lock_the_pair_and_nobody_else() {
    let mut site = Site::start(Signup::Open).await;
    let root = site.code(HERE, SUPERADMIN).await;
    // With or without a live code.
    for email in [SUPERADMIN, "nobody@example.com"] {
        for _ in 0..10 {
            site.verify(FAR, email, "abc").problem(401, "unauthorized").await;
        }
        let locked = site.verify(FAR, email, &root).problem(429, "rate_limited").await;
        let seconds: u32 = locked.header("retry-after").parse().unwrap();
        assert!((3_590..=3_600).contains(&seconds), "{seconds}");
    }
    site.restart().await;
    site.verify(FAR, SUPERADMIN, &root).status(429).await;
    // Their guesses killed the code, but the administrator gets the next one and is in.
    site.sign_in(HERE, SUPERADMIN).await;
    site.verify(FAR, "ada@example.com", "abc").status(401).await;
}

#[tokio::test]
async fn of_parallel_guesses_no_more_are_compared_than_may_be() {
    let site = Arc::new(Site::start(Signup::Open).await);
    let code = site.code(HERE, "ada@example.com").await;
    let wrong = other(&code);
    let client = Arc::new(
        reqwest::Client::builder()
            .no_proxy()
            .local_address(Some(FAR.parse().unwrap()))
            .build()
            .unwrap(),
    );
    let guesses = (0..200).map(|n| {
        let (client, url) = (Arc::clone(&client), format!("{}{VERIFY}", site.server.url));
        // The right one is among them, behind more wrong ones than may be tried.
        let body = json!({"email": "ada@example.com", "code": if n < 150 { &wrong } else { &code }}).to_string();
        async move {
            let request = client.post(url).header("content-type", "application/json").body(body);
            request.send().await.unwrap().status().as_u16()
        }
    });
    let statuses = futures::future::join_all(guesses).await;
    let count = |status: u16| statuses.iter().filter(|it| **it == status).count();
    // Five wrong ones end the code; what comes in order can be no success.
    assert!(count(200) <= 1, "{statuses:?}");
    assert_eq!(count(200) + count(401) + count(429), 200, "{statuses:?}");
    assert!(count(401) <= 10 && count(429) >= 189, "{statuses:?}");
    let failures = site.audit().await;
    let failures = failures.iter().filter(|entry| entry.action == "session.login_failed");
    assert_eq!(failures.count(), count(401), "what was refused was not compared");
}

#[tokio::test]
async fn of_parallel_logins_no_more_get_a_code_than_may() {
    let site = Site::start(Signup::Open).await;
    let logins = (0..60).map(|_| site.login(HERE, "ada@example.com").send());
    let statuses: Vec<_> = futures::future::join_all(logins)
        .await
        .into_iter()
        .map(|reply| reply.status)
        .collect();
    let count = |status: u16| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(200), count(429)), (5, 55), "{statuses:?}");
    assert_eq!(site.count("login_codes"), 3);
}

#[tokio::test]
async fn a_source_that_keeps_asking_is_refused_before_the_database_hears_of_it() {
    let mut limits = limits();
    limits.logins = burst(5);
    limits.failures = burst(1);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let key = generate_master_key().expose().to_owned();
    let server = Server::build(
        dir,
        &key,
        |_| {},
        limits,
        |metrics, _| {
            let (outbox, _) = Outbox::new(Transport::Log, PACE, metrics.clone());
            Login::new(Signup::Open, Some(outbox))
        },
    )
    .await;
    // Keys that fail beside it take nothing from it.
    server.call_from(HERE, "GET", "/api/orgs").key("x").status(401).await;
    server.call_from(HERE, "GET", "/api/orgs").key("x").status(429).await;
    let body = json!({"email": "ada@example.com", "code": "no"});
    let verify = |ip| server.call_from(ip, "POST", VERIFY).json(body.clone());
    for _ in 0..5 {
        verify(HERE).status(401).await;
    }
    server.statements.take();
    verify(HERE).problem(429, "rate_limited").await;
    let login = server
        .call_from(HERE, "POST", LOGIN)
        .json(json!({"email": "bob@example.com"}));
    login.problem(429, "rate_limited").await;
    // The log may be looked after at any time.
    let ran = server.statements.take();
    assert!(!ran.iter().any(|sql| sql.contains("login_")), "{ran:?}");
    verify(FAR).status(401).await;
}

#[tokio::test]
async fn a_forged_forwarding_header_moves_nobody_to_another_network() {
    let site = Site::start(Signup::Open).await;
    for n in 0..6 {
        let forged = site
            .login(HERE, "ada@example.com")
            .header("x-forwarded-for", &format!("203.0.{n}.1"));
        forged.status(if n < 5 { 200 } else { 429 }).await;
    }
}

#[tokio::test]
async fn a_stranger_is_not_let_in_by_the_right_code_where_signup_is_closed() {
    let mut site = Site::start(Signup::Open).await;
    let code = site.code(HERE, "stranger@example.com").await;
    site.restart_as(Signup::Invited).await;
    let refused = site
        .verify(HERE, "stranger@example.com", &code)
        .problem(401, "unauthorized")
        .await;
    let wrong = site.verify(HERE, "stranger@example.com", "000000").status(401).await;
    assert_eq!(refused.text, wrong.text);
    assert_eq!((site.count("users"), site.count("sessions")), (0, 0));
}

#[tokio::test]
async fn a_success_takes_no_room_from_later_failures() {
    let site = Site::start(Signup::Open).await;
    for _ in 0..4 {
        site.sign_in(HERE, "ada@example.com").await;
    }
    for _ in 0..10 {
        site.verify(HERE, "ada@example.com", "000").status(401).await;
    }
    site.verify(HERE, "ada@example.com", "000").status(429).await;
}

#[tokio::test]
async fn another_spelling_is_the_same_address_and_the_same_code() {
    let site = Site::start(Signup::Open).await;
    let spellings = [
        "ada@example.com",
        " ADA@example.com",
        "Ada@Example.COM ",
        "\tada@EXAMPLE.com\n",
        "aDa@example.com",
    ];
    let mut last = String::new();
    for spelling in spellings {
        last = site.code(HERE, spelling).await;
    }
    site.login(HERE, "adA@example.com").status(429).await;
    for spelling in spellings {
        for _ in 0..2 {
            site.verify(FAR, spelling, "no").status(401).await;
        }
    }
    site.verify(FAR, "ADA@EXAMPLE.COM", &last).status(429).await;

    let code = site.code(HERE, "bob@example.com").await;
    let spaced = format!(" {} {}\u{a0}\n", &code[..3], &code[3..]);
    site.verify(HERE, "BOB@example.com ", &spaced).status(200).await;
    // Nor is it another code with spaces in other places.
    site.verify(HERE, "bob@example.com", &code).status(401).await;
}

#[tokio::test]
async fn failures_are_on_record_without_the_code_and_name_users_only() {
    let site = Site::start(Signup::Invited).await;
    site.invite("ada@example.com").await;
    let code = site.code(HERE, "ada@example.com").await;
    let wrong = other(&code);
    site.verify(FAR, "ada@example.com", &wrong).status(401).await;
    site.verify(FAR, "hunter2@example.com", &wrong).status(401).await;
    let entries = site.audit().await;
    let failed: Vec<_> = entries
        .iter()
        .filter(|entry| entry.action == "session.login_failed")
        .collect();
    let [stranger, ada] = failed[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (ada.outcome.as_str(), ada.actor_type.as_str()),
        ("failure", "anonymous")
    );
    assert_eq!(ada.resource_name.as_deref(), Some("ada@example.com"));
    assert_eq!(ada.ip.as_deref(), Some(FAR));
    assert_eq!((&stranger.resource_name, stranger.resource_id), (&None, None));
    assert_eq!(stranger.metadata, ada.metadata, "nothing says whether there was a code");
    let all = format!("{entries:?}");
    assert!(!all.contains("hunter2") && !all.contains(&format!("\"{wrong}\"")));
    let report = site.server.store.verify_audit().await.unwrap();
    assert!(report.is_intact());
}

#[tokio::test]
async fn neither_codes_nor_addresses_that_were_tried_are_stored_in_clear() {
    let site = Site::start(Signup::Invited).await;
    let token = site.sign_in(HERE, SUPERADMIN).await;
    site.login(FAR, "stranger-canary@example.com").status(200).await;
    site.verify(FAR, "stranger-canary@example.com", "123456")
        .status(401)
        .await;
    for entry in std::fs::read_dir(site.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in ["stranger-canary", token.as_str()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

#[tokio::test]
async fn what_is_over_goes_and_what_is_refused_adds_nothing() {
    let site = Site::start(Signup::Open).await;
    site.login(HERE, "ada@example.com").status(200).await;
    for n in 0..100 {
        site.sql(&format!(
            "INSERT INTO login_counters (kind, key, count, ends_at) VALUES (1, randomblob(32), {n}, {n})"
        ));
    }
    for n in 0..8 {
        site.verify(HERE, &format!("{n}@example.com"), "no").status(401).await;
    }
    let rows = site.count("login_counters WHERE ends_at < 1000");
    assert_eq!(rows, 0, "every call takes more away than it adds");

    let full = |kind: u8, count: u16| {
        let sql = format!("UPDATE login_counters SET count = {count} WHERE kind = {kind}");
        assert_eq!(site.sql(&sql), 1);
    };
    // The ceilings of everybody, for logins and for failures.
    full(4, 3_000);
    full(7, 2_000);
    let before = (
        site.count("login_counters"),
        site.count("login_codes"),
        site.count("audit_entries"),
    );
    for n in 10..20 {
        site.login(FAR, &format!("{n}@example.com"))
            .problem(429, "rate_limited")
            .await;
        site.verify(FAR, &format!("{n}@example.com"), "no")
            .problem(429, "rate_limited")
            .await;
    }
    let after = (
        site.count("login_counters"),
        site.count("login_codes"),
        site.count("audit_entries"),
    );
    assert_eq!(before, after);
}

#[tokio::test]
async fn the_ceiling_of_everybody_does_not_lock_out_who_signs_in_as_ever() {
    let site = Site::start(Signup::Open).await;
    site.sign_in(HERE, "ada@example.com").await;
    site.verify(FAR, "eve@example.com", "no").status(401).await;
    site.sql("UPDATE login_counters SET count = 3000 WHERE kind = 4");
    site.sql("UPDATE login_counters SET count = 2000 WHERE kind = 7");
    site.login(FAR, "ada@example.com").status(429).await;
    site.verify(FAR, "ada@example.com", "no").status(429).await;
    site.sign_in(HERE, "ada@example.com").await;
    // Nor has she made room for others by that.
    site.verify(FAR, "eve@example.com", "no").status(429).await;
}

#[tokio::test]
async fn all_networks_together_get_a_hundred_guesses_and_then_kill_no_code_of_who_signs_in_as_ever() {
    let site = Site::start(Signup::Open).await;
    site.sign_in(HERE, "ada@example.com").await;
    let far = |network: u8| format!("127.0.{network}.1");
    for network in 2..12 {
        for _ in 0..10 {
            site.verify(&far(network), "ada@example.com", "no").status(401).await;
        }
    }
    let code = site.code(HERE, "ada@example.com").await;
    for network in 12..18 {
        site.verify(&far(network), "ada@example.com", &other(&code))
            .status(429)
            .await;
        // Others are not touched by what was refused.
        site.verify(&far(network), "bob@example.com", "no").status(401).await;
    }
    site.verify(HERE, "ada@example.com", &code).status(200).await;
}

#[tokio::test]
async fn a_window_that_a_wrong_clock_opened_in_the_future_is_over() {
    let site = Site::start(Signup::Open).await;
    for _ in 0..5 {
        site.login(HERE, "ada@example.com").status(200).await;
    }
    site.login(HERE, "ada@example.com").status(429).await;
    let year = sealpod_core::Time::now().plus_seconds(365 * 24 * 3_600).microseconds();
    site.sql(&format!("UPDATE login_counters SET ends_at = {year}"));
    site.login(HERE, "ada@example.com").status(200).await;
}

#[tokio::test]
async fn every_fault_of_a_body_is_named_and_counts_nothing() {
    let site = Site::start(Signup::Open).await;
    let long = format!("{}@{}.com", "a".repeat(64), "b.".repeat(100));
    let emails = [
        json!(null),
        json!(1),
        json!(true),
        json!(["a@b.example"]),
        json!({"a": 1}),
        json!(""),
        json!(" "),
        json!("canary"),
        json!("canary@"),
        json!("@canary.example"),
        json!("canary@a@b"),
        json!("canary@exa mple.com"),
        json!("canary\u{0}@example.com"),
        json!("canary@example.com\r\nBcc: eve@example.com"),
        json!("cänary@example.com"),
        json!("canary@exämple.com"),
        json!("canary@[127.0.0.1]"),
        json!("\"canary\"@example.com"),
        json!(long),
    ];
    for email in emails {
        let refused = |call: Call| async {
            let reply = call.invalid("email").await;
            assert!(!reply.text.contains("canary"), "{}", reply.text);
        };
        refused(site.server.call("POST", LOGIN).json(json!({"email": email}))).await;
        refused(
            site.server
                .call("POST", VERIFY)
                .json(json!({"email": email, "code": "123456"})),
        )
        .await;
    }
    for code in [json!(null), json!(123_456), json!(["123456"]), json!({}), json!(true)] {
        let body = json!({"email": "ada@example.com", "code": code});
        site.server.call("POST", VERIFY).json(body).invalid("code").await;
    }
    let post = |path: &str, body: &str| site.server.call("POST", path).body("application/json", body.to_owned());
    for path in [LOGIN, VERIFY] {
        post(path, "{}").invalid("email").await;
        post(path, r#"{"email":"a@b.example","email":"c@d.example"}"#)
            .invalid("email")
            .await;
        post(path, r#"{"email":"a@b.example","code":"1","token":"x"}"#)
            .invalid("token")
            .await;
        for body in [
            "",
            "[]",
            "\"a\"",
            "{",
            "{\"email\":\"a@b.example\"",
            "null",
            "\u{feff}{}",
        ] {
            post(path, body).problem(400, "validation_failed").await;
        }
        let bytes = [b"{\"email\":\"\xff@example.com\"}".as_slice(), b"\xff"];
        for body in bytes {
            let call = site.server.call("POST", path).body("application/json", body.to_vec());
            call.problem(400, "validation_failed").await;
        }
        let large = json!({"email": "a".repeat(16 * 1024)}).to_string();
        post(path, &large).problem(413, "payload_too_large").await;
        let text = site.server.call("POST", path).body("text/plain", "{}");
        text.problem(415, "unsupported_media_type").await;
        site.server.call("GET", path).problem(405, "method_not_allowed").await;
        site.server
            .call("POST", &format!("{path}?a=b"))
            .json(json!({}))
            .invalid("a")
            .await;
        // Only these two paths are open, spelled like this.
        site.server.call("POST", &format!("{path}/")).status(401).await;
    }
    post(VERIFY, r#"{"email":"ada@example.com"}"#).invalid("code").await;
    assert_eq!((site.count("login_counters"), site.count("login_codes")), (0, 0));
    // Text that is no code is a wrong one: it may have been meant as one.
    for code in [
        "",
        " ",
        "12345",
        "1234567",
        "１２３４５６",
        "12345a",
        "\u{0}",
        &"1".repeat(8_000),
    ] {
        let body: Value = json!({"email": format!("{}@example.com", code.len()), "code": code});
        let wrong = site.server.call("POST", VERIFY).json(body);
        wrong.problem(401, "unauthorized").await;
    }
}

#[tokio::test]
async fn without_a_mail_server_nobody_is_told_to_wait_for_a_mail() {
    let server = Server::start().await;
    for (path, body) in [
        (LOGIN, json!({"email": "ada@example.com"})),
        (VERIFY, json!({"email": "ada@example.com", "code": "123456"})),
    ] {
        let reply = server.call("POST", path).json(body).problem(503, "mail_disabled").await;
        assert!(reply.text_at("detail").contains("SEALPOD_SMTP_URL"));
    }
}

#[tokio::test]
async fn a_credential_that_comes_along_changes_nothing() {
    let site = Site::start(Signup::Open).await;
    let body = json!({"email": "ada@example.com"});
    for token in ["wrong", crate::support::ADMIN] {
        let call = site.server.call("POST", LOGIN).bearer(token).json(body.clone());
        call.status(200).await;
    }
}
