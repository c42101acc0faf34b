//! Another webhook that changes the same pods behind ours, as a service mesh's does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use data_encoding::BASE64;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::{Value, json};

/// The API server takes a moment to hear of a webhook.
const HEARD: Duration = Duration::from_mins(1);
/// How long somebody who connects may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);
const PROXY: &str = "istio-proxy";

/// A webhook of this process, which puts the mesh's proxy into pods: directly behind our own init container, the one place
/// from which ours has to move.
struct Mesh {
    address: SocketAddr,
    certificate: String,
    /// The init containers of each pod that it was shown without a proxy.
    shown: Arc<Mutex<Vec<Vec<String>>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mesh {
    /// `proxy`: the container that it puts in.
    fn start(address: IpAddr, proxy: Value) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([address.to_string()])?.self_signed(&key)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        let listener = TcpListener::bind((address, 0)).context("this machine's own address cannot be listened on")?;
        let address = listener.local_addr()?;
        let (shown, ends) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (noted, ended, tls) = (Arc::clone(&shown), Arc::clone(&ends), Arc::new(tls));
        let thread = std::thread::spawn(move || {
            std::thread::scope(|calls| {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    // Each by itself: a connection that is only kept for later keeps nobody waiting.
                    calls.spawn(|| {
                        let answered = stream.map_err(Into::into);
                        let answered = answered.and_then(|stream| answer(stream, &tls, &proxy, &noted));
                        if let Err(error) = answered {
                            println!("a call of the mesh's webhook was not answered: {error:#}");
                        }
                    });
                }
            });
        });
        Ok(Self {
            address,
            certificate: certificate.pem(),
            shown,
            ends,
            thread: Some(thread),
        })
    }

    /// For pods of this namespace alone. By its name it is called behind ours.
    fn configuration(&self, namespace: &str) -> Result<MutatingWebhookConfiguration> {
        Ok(serde_json::from_value(json!({
            "metadata": {"name": format!("zz-{namespace}")},
            "webhooks": [{
                "name": "proxy.mesh.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {
                    "url": format!("https://{}/mutate", self.address),
                    "caBundle": BASE64.encode(self.certificate.as_bytes()),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "failurePolicy": "Fail", "timeoutSeconds": 10, "reinvocationPolicy": "Never",
            }],
        }))?)
    }

    fn shown(&self) -> Vec<Vec<String>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // So that it looks.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers one call, and closes the connection.
fn answer(
    mut stream: TcpStream,
    tls: &Arc<ServerConfig>,
    proxy: &Value,
    shown: &Mutex<Vec<Vec<String>>>,
) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(Arc::clone(tls))?;
    let mut stream = BufReader::new(Stream::new(&mut connection, &mut stream));
    let mut length = 0;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the request ended in its headers");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let review = serde_json::to_vec(&review(&serde_json::from_slice(&body)?, proxy, shown)?)?;
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        review.len()
    )?;
    stream.write_all(&review)?;
    stream.flush()?;
    stream.conn.send_close_notify();
    Ok(stream.conn.complete_io(stream.sock).map(drop)?)
}

fn review(review: &Value, proxy: &Value, shown: &Mutex<Vec<Vec<String>>>) -> Result<Value> {
    let request = &review["request"];
    let init = request["object"]["spec"]["initContainers"].as_array();
    let names = init.into_iter().flatten().map(|container| container["name"].as_str());
    let names: Vec<_> = names.map(|name| name.unwrap_or_default().to_owned()).collect();
    let mut response = json!({"uid": request["uid"].as_str().context("a request has an id")?, "allowed": true});
    if !names.iter().any(|name| name == PROXY) {
        let behind = names.iter().take_while(|name| is_ours(name)).count();
        let patch = match init {
            Some(_) => json!([{"op": "add", "path": format!("/spec/initContainers/{behind}"), "value": proxy}]),
            None => json!([{"op": "add", "path": "/spec/initContainers", "value": [proxy]}]),
        };
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(BASE64.encode(&serde_json::to_vec(&patch)?));
        shown.lock().unwrap_or_else(PoisonError::into_inner).push(names);
    }
    Ok(json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}))
}

fn is_ours(name: &str) -> bool {
    name == "sealpod" || name.starts_with("sealpod-")
}

fn init_containers(pod: &Pod) -> Vec<&str> {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.map(|container| container.name.as_str()).collect()
}

/// An app behind an init container that needs the file.
fn app(t: &Sandbox, name: &str) -> Result<Pod> {
    let needs = format!("test \"$(cat {})\" = behind-the-proxy", file("db", "password"));
    let mut template = pods::template("db", &[pods::container("app", t.image(), 10_001, pods::SLEEP)]);
    template["spec"]["initContainers"] = json!([pods::container("migrate", t.image(), 10_001, &needs)]);
    pods::pod(name, template)
}

#[test]
fn where_a_mesh_comes_behind_us_we_are_called_again_and_stand_behind_its_proxy() -> Result<()> {
    on_cluster(async |t| {
        let Some(machine) = t.machine().await? else {
            println!("the API server of this cluster may not reach this machine: nothing is tried");
            return Ok(());
        };
        t.delivery("password", "behind-the-proxy").await?;
        let mut proxy = pods::container(PROXY, t.image(), 10_002, pods::SLEEP);
        proxy["restartPolicy"] = json!("Always");
        let mesh = Mesh::start(machine, proxy)?;
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(t.client());
        let registered = mesh.configuration(&t.namespace)?;
        let registered = configurations.create(&PostParams::default(), &registered).await?;
        let tried = behind(t, &mesh).await;
        // Nobody else's pods come by, and without its server none would be made here.
        let name = registered.metadata.name.context("it has a name")?;
        configurations.delete(&name, &DeleteParams::default()).await?;
        tried
    })
}

async fn behind(t: &Sandbox, mesh: &Mesh) -> Result<()> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("both webhooks to be called", HEARD, async || {
        let pod = t.api::<Pod>().create(&dry, &app(t, "first")?).await?;
        let init = init_containers(&pod);
        ensure!(init.contains(&PROXY), "{init:?}");
        ensure!(init.iter().any(|name| is_ours(name)), "{init:?}");
        Ok(())
    })
    .await?;
    let before = mesh.shown().len();
    let pod = t.running("app", app(t, "app")?).await?;
    // It came behind us: what it was shown had our container at the front.
    let shown = mesh.shown().split_off(before);
    assert!(
        !shown.is_empty() && shown.iter().all(|init| is_ours(&init[0])),
        "{shown:?}"
    );
    // And behind it we moved, with nothing of it or of the pod's own lost or twice.
    let init = init_containers(&pod);
    let ours = shown[0].iter().filter(|name| is_ours(name)).map(String::as_str);
    let wanted: Vec<_> = std::iter::once(PROXY).chain(ours).chain(["migrate"]).collect();
    assert_eq!(init, wanted);
    assert_eq!(pods::restarts(&pod), 0, "nothing had to be tried again");
    let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
    assert_eq!(seen, "behind-the-proxy");
    Ok(())
}
