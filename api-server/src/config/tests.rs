use super::*;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

const MASTER: &str = "1f2e3d4c5b6a79881f2e3d4c5b6a79880011223344556677aabbccddeeff0099";
const ADMIN: &str = "admin-admin-admin-admin-admin-admin";

fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, String> {
    let args = Command::parse_from(std::iter::once("test").chain(arguments.iter().copied())).serve;
    let environment: Environment = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut faults = Faults::default();
    environment.check(&mut faults);
    let config = Config::check(args, &environment, &mut faults);
    faults.finish(config).map_err(|faults| faults.to_string())
}

#[test]
fn the_two_keys_are_all_that_must_be_given() {
    let config = check(&[], &[("SEALPOD_MASTER_KEY", MASTER), ("SEALPOD_ADMIN_API_KEY", ADMIN)]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:7100".parse().unwrap());
    assert_eq!(config.metrics_listen, "127.0.0.1:7101".parse().unwrap());
    assert_eq!(config.default_organization, "default");
    assert!(!config.docs, "what serves people who are not known has to be asked for");
    assert!(config.admin_keys.accept(ADMIN) && config.tls.is_none() && config.admin_key_file.is_none());
}

#[test]
fn superadmins_are_a_list_of_addresses() {
    let keys = [("SEALPOD_MASTER_KEY", MASTER), ("SEALPOD_ADMIN_API_KEY", ADMIN)];
    let config = check(&["--superadmins", "Root@example.com,ada@example.com"], &keys).unwrap();
    assert!(config.superadmins.contain("root@example.com") && !config.superadmins.contain("eve@example.com"));
    let faults = check(&["--superadmins", "root"], &keys).err().unwrap();
    assert!(
        faults.contains("SEALPOD_SUPERADMINS: must be an e-mail address"),
        "{faults}"
    );
}

#[test]
fn login_codes_go_nowhere_to_the_log_or_to_a_mail_server() {
    use crate::login::Signup;
    use crate::mail::Transport;

    let config = |arguments: &[&str], smtp: &[(&str, &str)]| {
        let keys = [("SEALPOD_MASTER_KEY", MASTER), ("SEALPOD_ADMIN_API_KEY", ADMIN)];
        check(arguments, &[keys.as_slice(), smtp].concat())
    };
    let nothing = config(&[], &[]).unwrap();
    assert!(nothing.mail.is_none() && nothing.signup == Signup::Open);
    let log = config(&["--signup", "invited"], &[("SEALPOD_SMTP_URL", "log\n")]).unwrap();
    assert!(matches!(log.mail, Some(Transport::Log)) && log.signup == Signup::Invited);
    let url = ("SEALPOD_SMTP_URL", "smtp://me:canary@mail.example.com");
    let from = ["--smtp-from", "Sealpod <login@example.com>"];
    assert!(matches!(config(&from, &[url]).unwrap().mail, Some(Transport::Smtp(_))));

    let ca = ("SEALPOD_SMTP_URL", "smtps://me:canary@mail.example.com?ca=/nonexistent");
    for (arguments, smtp, fault) in [
        (&[][..], url, "SEALPOD_SMTP_FROM: is needed"),
        (
            &["--smtp-from", "Sealpod\r\nBcc: <a@b.example>"],
            url,
            "SEALPOD_SMTP_FROM: must be",
        ),
        (&["--smtp-from", "login@exämple.com"], url, "SEALPOD_SMTP_FROM: must be"),
        (&from, ca, "SEALPOD_SMTP_URL: the file of `ca`: /nonexistent"),
        (&from, ("SEALPOD_SMTP_URL", "canary"), "SEALPOD_SMTP_URL: must be"),
        (
            &["--signup", "nobody"],
            url,
            "SEALPOD_SIGNUP: must be `open` or `invited`",
        ),
    ] {
        let faults = config(arguments, &[smtp]).err().unwrap();
        assert!(faults.contains(fault) && !faults.contains("canary"), "{faults}");
    }
}

#[test]
fn both_keys_come_from_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let (master, admin) = (dir.path().join("master.key"), dir.path().join("admin.key"));
    std::fs::write(&master, format!("{MASTER}\n")).unwrap();
    std::fs::write(&admin, format!("{ADMIN}\n")).unwrap();
    let (master, admin) = (master.to_str().unwrap(), admin.to_str().unwrap());
    let config = check(&["--master-key-file", master, "--admin-api-key-file", admin], &[]).unwrap();
    assert!(config.admin_key_file.is_some());

    let both = [("SEALPOD_MASTER_KEY", MASTER), ("SEALPOD_ADMIN_API_KEY", ADMIN)];
    let faults = check(&["--master-key-file", master, "--admin-api-key-file", admin], &both)
        .err()
        .unwrap();
    assert_eq!(faults.matches("take one away").count(), 2, "{faults}");
}

#[test]
fn one_start_names_every_fault_and_quotes_no_key() {
    let faults = check(
        &[
            "--listen",
            "nowhere",
            "--metrics-listen",
            "localhost",
            "--tls-cert",
            "/x",
            "--default-org",
            "Not A Label",
            "--rate-per-key",
            "many",
            "--trusted-proxies",
            "10.0.0.0/8,canary",
            "--trash-days",
            "0",
        ],
        &[
            ("SEALPOD_MASTER_KEY", "canary"),
            ("SEALPOD_ADMIN_API_KEY", "canary"),
            ("SEALPOD_TYPO", "canary"),
        ],
    )
    .err()
    .unwrap();
    for setting in [
        "SEALPOD_LISTEN",
        "SEALPOD_METRICS_LISTEN",
        "SEALPOD_TLS_KEY",
        "SEALPOD_DEFAULT_ORG",
        "SEALPOD_RATE_PER_KEY",
        "SEALPOD_TRUSTED_PROXIES",
        "SEALPOD_TRASH_DAYS",
        "SEALPOD_MASTER_KEY",
        "SEALPOD_ADMIN_API_KEY",
        "SEALPOD_TYPO",
    ] {
        assert!(faults.contains(&format!("\n  {setting}: ")), "{setting} in {faults}");
    }
    assert!(!faults.contains("canary"), "{faults}");
}

#[test]
fn a_start_without_a_proper_master_key_is_refused() {
    for master in [
        "",
        "1234",
        &"0".repeat(64),
        &"f".repeat(64),
        &"0123456789abcdef".repeat(4),
    ] {
        let variables = [("SEALPOD_MASTER_KEY", master), ("SEALPOD_ADMIN_API_KEY", ADMIN)];
        let faults = check(&[], &variables).err().unwrap();
        assert!(faults.contains("SEALPOD_MASTER_KEY"), "{faults}");
    }
    let faults = check(
        &["--master-key-file", "/nonexistent"],
        &[("SEALPOD_ADMIN_API_KEY", ADMIN)],
    )
    .err()
    .unwrap();
    assert!(faults.contains("/nonexistent does not exist"), "{faults}");
}
