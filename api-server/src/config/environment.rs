//! The `SEALPOD_*` variables of the process: those of ours that no flag reads, and a check for those that nothing
//! reads, because a misspelt setting would silently be its default.

use zeroize::Zeroizing;

use super::Faults;

/// Every variable that some setting reads.
const KNOWN: [&str; 27] = [
    "SEALPOD_LISTEN",
    "SEALPOD_METRICS_LISTEN",
    "SEALPOD_DATABASE_URL",
    "SEALPOD_MASTER_KEY",
    "SEALPOD_MASTER_KEY_FILE",
    "SEALPOD_ADMIN_API_KEY",
    "SEALPOD_ADMIN_API_KEY_FILE",
    "SEALPOD_SUPERADMINS",
    "SEALPOD_SIGNUP",
    "SEALPOD_SMTP_URL",
    "SEALPOD_SMTP_FROM",
    "SEALPOD_TLS_CERT",
    "SEALPOD_TLS_KEY",
    "SEALPOD_DEFAULT_ORG",
    "SEALPOD_RATE_PER_KEY",
    "SEALPOD_TRUSTED_PROXIES",
    "SEALPOD_DOCS",
    "SEALPOD_TRASH_DAYS",
    "SEALPOD_AUDIT_RETAIN_DAYS",
    "SEALPOD_BACKUP_URL",
    "SEALPOD_BACKUP_RECIPIENTS",
    "SEALPOD_BACKUP_SCHEDULE_HOURS",
    "SEALPOD_BACKUP_RETAIN_DAILY_DAYS",
    "SEALPOD_BACKUP_RETAIN_WEEKLY_WEEKS",
    "SEALPOD_DATA_DIR",
    "SEALPOD_LOG",
    "SEALPOD_LOG_FORMAT",
];

const PREFIX: &str = "SEALPOD_";

/// The variables that begin with `SEALPOD_`, wiped when dropped.
#[derive(Default)]
pub struct Environment(Vec<(String, Zeroizing<String>)>);

impl Environment {
    pub fn of_process() -> Self {
        // A value that is no Unicode becomes one that no setting takes.
        std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect()
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Notes every variable that no setting reads.
    pub fn check(&self, faults: &mut Faults) {
        for (name, _) in &self.0 {
            if !KNOWN.contains(&name.as_str()) && !is_service_link(name) {
                faults.add(name, "is no setting of this server; correct its name or unset it");
            }
        }
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
        Self(ours.map(|(name, value)| (name, Zeroizing::new(value))).collect())
    }
}

/// Whether Kubernetes makes a variable of this name for a Service: `X_SERVICE_HOST`, `X_SERVICE_PORT…`, `X_PORT`,
/// `X_PORT_…`.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_a_fault_and_a_service_link_is_none() {
        let environment: Environment = [
            "SEALPOD_LISTENS",
            "SEALPOD_SMTP_URI",
            "SEALPOD_LISTEN",
            "SEALPOD_API_SERVER_SERVICE_HOST",
            "SEALPOD_API_SERVER_SERVICE_PORT_HTTPS",
            "SEALPOD_API_SERVER_PORT",
            "SEALPOD_API_SERVER_PORT_7100_TCP_ADDR",
            "HOME",
        ]
        .map(|name| (name.to_owned(), "canary".to_owned()))
        .into_iter()
        .collect();
        let mut faults = Faults::default();
        environment.check(&mut faults);
        let text = faults.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("SEALPOD_LISTENS:") && text.contains("SEALPOD_SMTP_URI:"),
            "{text}"
        );
        assert!(!text.contains("canary"), "{text}");
    }
}
