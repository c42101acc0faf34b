//! The last words: what was done, and how to look around. Pure.

use super::quickstart::{APPLICATION, CONTAINER, DEPLOYMENT, ENVIRONMENT, SECRET};
use super::release::{self, Chart, object};
use super::{quickstart, release::NAMESPACE};

/// What the tour depends on.
#[derive(Debug)]
pub struct Tour<'a> {
    /// Lines for the user's shell, so that kubectl means the demo's cluster.
    pub exports: &'a [String],
    pub chart: &'a Chart,
    /// The example's folder, and the app's image if another one is used.
    pub example: String,
    pub app_image: Option<&'a str>,
    /// A port of this machine that is free.
    pub port: u16,
    /// Flags of `cargo xtask demo` beside `--down`.
    pub flags: &'a str,
}

impl Tour<'_> {
    pub fn text(&self) -> String {
        [self.exports(), self.done(), kubernetes(), self.rest(), self.end()].concat()
    }

    fn exports(&self) -> String {
        if self.exports.is_empty() {
            return String::new();
        }
        section("For your shell", self.exports.iter().map(String::as_str))
    }

    fn done(&self) -> String {
        let helm = format!("helm {}", self.chart.upgrade().join(" "));
        let image = self.app_image.map(|image| format!("   # with the app's image {image}"));
        let apply = format!("kubectl apply -f {}{}", self.example, image.unwrap_or_default());
        let rest = format!("/api/management/applications/{APPLICATION}/secrets");
        let slot = format!("POST {rest}   {{\"name\": \"{SECRET}\"}}");
        let value = format!("POST {rest}/{SECRET}/values   [{{\"environmentSlug\": \"{ENVIRONMENT}\", \"value\": …}}]");
        section("What the demo did", [helm.as_str(), &apply, &slot, &value])
    }

    fn rest(&self) -> String {
        let Self { port, .. } = self;
        let server = format!("https://localhost:{port}/api/management/applications");
        let curl = "curl --cacert $demo/ca.crt -H @$demo/header";
        let entry = |secret: &str, key: &str| {
            let key = key.replace('.', "\\.");
            let secret = object(secret);
            format!("kubectl -n {NAMESPACE} get secret {secret} -o jsonpath='{{.data.{key}}}' | base64 -d")
        };
        let forward = if *port == 7100 {
            "7100".to_string()
        } else {
            format!("{port}:7100")
        };
        section(
            "Call the REST API",
            [
                &format!(
                    "kubectl -n {NAMESPACE} port-forward service/{} {forward} > /dev/null &",
                    object("api-server")
                ),
                "demo=$(mktemp -d)   # for the CA and the admin key; yours only",
                &format!("{} > $demo/ca.crt", entry("server-tls", "ca.crt")),
                &format!(
                    "(printf 'Authorization: Bearer '; {}) > $demo/header",
                    entry("admin-key", "admin.key")
                ),
                &format!("{curl} {server}"),
                &format!("{curl} {server}/{APPLICATION}/secrets/{SECRET}/versions/{ENVIRONMENT}"),
                &format!(
                    "{curl} {server}/{APPLICATION}/secrets/{SECRET}/values --json '[{{\"environmentSlug\": \"{ENVIRONMENT}\", \"value\": \"mine\"}}]'"
                ),
                "rm -r $demo; kill %%   # when done",
            ],
        )
    }

    fn end(&self) -> String {
        let release = release::RELEASE;
        let what = if self.flags.is_empty() {
            "stops the cluster and removes every trace of it".to_string()
        } else {
            format!("removes the release {release}, its keys and data, the example, and the kinds of Sealpod")
        };
        section(
            "The end",
            [format!("cargo xtask demo{} --down   # {what}", self.flags).as_str()],
        )
    }
}

fn kubernetes() -> String {
    let namespace = quickstart::NAMESPACE;
    let file = quickstart::file();
    section(
        "Look around",
        [
            "kubectl get sealpod -A",
            &format!("kubectl -n {namespace} describe pod -l app={DEPLOYMENT}"),
            &format!("kubectl -n {namespace} logs deployment/{DEPLOYMENT} -c {CONTAINER}"),
            &format!("kubectl -n {namespace} exec deployment/{DEPLOYMENT} -c {CONTAINER} -- cat {file}"),
            &format!("kubectl -n {namespace} logs deployment/{DEPLOYMENT} -c sealpod"),
            "kubectl explain secretbinding.spec",
        ],
    )
}

fn section<'a>(title: &str, lines: impl IntoIterator<Item = &'a str>) -> String {
    lines
        .into_iter()
        .fold(format!("\n{title}\n"), |text, line| text + "  " + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    fn text(port: u16, flags: &str) -> String {
        let workspace = Workspace::locate().unwrap();
        let chart = Chart::new(&workspace, vec!["--set-string=image.tag=t".into()]);
        let exports = ["export KUBECONFIG=/k".to_string()];
        Tour {
            exports: &exports,
            chart: &chart,
            example: "examples/quickstart".into(),
            app_image: None,
            port,
            flags,
        }
        .text()
    }

    #[test]
    fn it_tells_the_cluster_the_commands_and_the_way_out() {
        let text = text(7100, "");
        for line in [
            "  export KUBECONFIG=/k\n",
            "--set-string=image.tag=t\n",
            "  kubectl apply -f examples/quickstart\n",
            "port-forward service/sealpod-api-server 7100 >",
            "  cargo xtask demo --down ",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn the_admin_key_is_fetched_and_never_shown_or_given_as_an_argument() {
        let text = text(7100, "");
        assert!(
            text.contains(r"get secret sealpod-admin-key -o jsonpath='{.data.admin\.key}' | base64 -d) > $demo/header")
        );
        assert!(text.contains("-H @$demo/header") && !text.contains("-H 'Authorization"));
    }

    #[test]
    fn an_occupied_port_is_replaced() {
        let text = text(41_000, " --existing");
        assert!(text.contains("port-forward service/sealpod-api-server 41000:7100 >"));
        assert!(text.contains("https://localhost:41000/"));
        assert!(text.contains("cargo xtask demo --existing --down "));
    }
}
