//! The node's own part: runtime, pod network, kubelet, service proxy.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use client::Informers;
use network::pod::{HostPort, PodNetwork};
use parking_lot::Mutex;
use runtime::{NetworkRequest, Registries, Runtime};
use rustls::{RootCertStore, pki_types::pem::PemObject, server::WebPkiClientVerifier};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    control_plane::{ControlPlane, Facts, KUBELET_SERVING},
    registries,
    supervisor::{StopPolicy, Supervisor},
};

/// Begins the names of links and tables.
pub(crate) const PREFIX: &str = "nv";
const MTU: u32 = 1500;

/// Gives the runtime the pod network once the kubelet knows the node's addresses.
struct LateNetwork {
    facts: Facts,
    network: tokio::sync::RwLock<Option<Arc<PodNetwork>>>,
    /// The network that is up, for the roles that need it.
    up: watch::Sender<Option<Arc<PodNetwork>>>,
    failure: Mutex<Option<String>>,
}

impl LateNetwork {
    async fn open(&self, cidr: &str) -> anyhow::Result<()> {
        let mut network = self.network.write().await;
        if network.is_some() {
            return Ok(());
        }
        let pods = cidr.split(',').find_map(|cidr| cidr.parse::<ipnet::Ipv4Net>().ok());
        let pods = pods.with_context(|| format!("the node's pod CIDR {cidr:?} has no IPv4 part"))?;
        let ipnet::IpNet::V4(cluster) = self.facts.flags.cluster_cidr else {
            anyhow::bail!("--cluster-cidr must be IPv4");
        };
        let opened = Arc::new(
            PodNetwork::new(network::pod::Config {
                prefix: PREFIX.into(),
                cidr: pods,
                cluster_cidr: cluster,
                state_dir: self.facts.layout.network(),
                mtu: MTU,
            })
            .await?,
        );
        if let ipnet::IpNet::V4(services) = self.facts.flags.service_cidr {
            opened.add_route(services).await?;
        }
        if let IpAddr::V4(dns) = self.facts.cluster_dns {
            opened.add_bridge_address(dns).await?;
        }
        *network = Some(Arc::clone(&opened));
        self.up.send_replace(Some(opened));
        Ok(())
    }
}

#[async_trait::async_trait]
impl runtime::Network for LateNetwork {
    async fn setup(&self, netns: &Path, request: &NetworkRequest) -> anyhow::Result<Vec<IpAddr>> {
        let network = self.network.read().await.clone().context("the pod network is not up yet")?;
        let ports: Vec<HostPort> = request
            .ports
            .iter()
            .filter(|port| port.host_port > 0)
            .map(|port| HostPort {
                protocol: port.protocol.to_lowercase(),
                host_port: port.host_port,
                host_ip: port.host_ip,
                pod_port: port.container_port,
            })
            .collect();
        Ok(network.setup(netns, &request.sandbox_id, &ports).await?)
    }

    async fn teardown(&self, _netns: &Path, request: &NetworkRequest) -> anyhow::Result<()> {
        let Some(network) = self.network.read().await.clone() else { return Ok(()) };
        Ok(network.teardown(&request.sandbox_id).await?)
    }

    async fn ready(&self) -> Result<(), String> {
        if self.network.read().await.is_some() {
            return Ok(());
        }
        Err(self.failure.lock().clone().unwrap_or_else(|| "the node has no pod addresses yet".into()))
    }

    async fn set_pod_cidr(&self, cidr: &str) {
        if let Err(error) = self.open(cidr).await {
            tracing::error!(cidr, "cannot make the pod network: {error:#}");
            *self.failure.lock() = Some(format!("{error:#}"));
        }
    }
}

/// Opens the runtime on this node's directories; for the server and for the command line.
pub async fn open_runtime(facts: &Facts, network: Arc<dyn runtime::Network>) -> anyhow::Result<Runtime> {
    let layout = &facts.layout;
    let registries: Registries = registries::load(&facts.flags.private_registry)?;
    let run_dir = layout.run();
    std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let config = runtime::Config {
        root: layout.runtime(),
        cgroup_parent: facts.flags.cgroup_root.clone(),
        prefix: PREFIX.into(),
        shim_command: vec![executable.into(), "shim".into()],
        registries,
        network,
        streaming_socket: run_dir.join("stream.sock"),
        preload: Some(layout.preload()),
        run_dir,
    };
    Ok(Runtime::open(config).await?)
}

/// Starts the node's roles; `ready` turns true once the kubelet runs.
pub async fn start(
    facts: &Facts,
    control_plane: &ControlPlane,
    supervisor: &Supervisor,
    cancel: &CancellationToken,
) -> anyhow::Result<watch::Receiver<bool>> {
    let network = Arc::new(LateNetwork {
        facts: facts.clone(),
        network: tokio::sync::RwLock::default(),
        up: watch::Sender::new(None),
        failure: Mutex::default(),
    });
    let socket = facts.layout.cri_socket();
    if facts.flags.container_runtime_endpoint.is_none() {
        let runtime = open_runtime(facts, network.clone()).await?;
        supervise_runtime(supervisor, runtime.clone(), &socket);
        let control = facts.layout.run().join("control.sock");
        supervisor.start("control", StopPolicy::Drop, move |cancel| {
            crate::control::serve(runtime.clone(), control.clone(), cancel)
        });
    }
    let ready = supervise_kubelet(facts, control_plane, supervisor, cancel)?;
    supervise_proxy(facts, control_plane, supervisor);
    supervise_dns(facts, control_plane, supervisor, network.up.subscribe());
    Ok(ready)
}

fn supervise_runtime(supervisor: &Supervisor, runtime: Runtime, socket: &Path) {
    let socket = socket.to_path_buf();
    supervisor.start("runtime", StopPolicy::Drain(Duration::from_secs(2)), move |cancel| {
        let (runtime, socket) = (runtime.clone(), socket.clone());
        async move {
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
                }
                _ => {}
            }
            let listener = tokio::net::UnixListener::bind(&socket)
                .with_context(|| format!("cannot listen on {}", socket.display()))?;
            runtime.serve(listener, cancel).await?;
            Ok(())
        }
    });
}

/// What the kubelet serves with: its certificate, and the authority of its callers.
fn kubelet_tls(facts: &Facts, control_plane: &ControlPlane) -> anyhow::Result<rustls::ServerConfig> {
    let tls = facts.layout.tls();
    let path = |extension: &str| tls.join(format!("{KUBELET_SERVING}.{extension}"));
    let chain: Vec<_> = rustls::pki_types::CertificateDer::pem_file_iter(path("crt"))?.collect::<Result<_, _>>()?;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(path("key"))?;
    let mut roots = RootCertStore::empty();
    let authority = control_plane.authorities.client.certificate.as_bytes();
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let mut config =
        rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    // Exec, attach and port-forward upgrade the connection, which HTTP/2 cannot.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn supervise_kubelet(
    facts: &Facts,
    control_plane: &ControlPlane,
    supervisor: &Supervisor,
    cancel: &CancellationToken,
) -> anyhow::Result<watch::Receiver<bool>> {
    let user = format!("system:node:{}", facts.node_name);
    let informers = Informers::new(control_plane.client(&user, &["system:nodes"]), cancel.clone());
    let mut config = kubelet::Config::new(&facts.node_name, facts.layout.kubelet(), informers);
    config.node_ips = vec![facts.node_ip];
    config.log_dir = facts.layout.pod_logs();
    config.runtime_socket = match &facts.flags.container_runtime_endpoint {
        Some(endpoint) => endpoint.strip_prefix("unix://").unwrap_or(endpoint).into(),
        None => facts.layout.cri_socket(),
    };
    config.cluster_dns = vec![facts.cluster_dns];
    config.cluster_domain = facts.flags.cluster_domain.clone();
    config.cgroup_parent = format!("/{}", facts.flags.cgroup_root.trim_matches('/'));
    config.listen = Some(SocketAddr::new(facts.flags.bind_address, facts.flags.kubelet_port));
    config.tls = Some(watch::Sender::new(Arc::new(kubelet_tls(facts, control_plane)?)).subscribe());
    config.static_pod_dir = Some(facts.layout.manifests());
    config.version = apiserver::GIT_VERSION.into();
    for label in &facts.flags.node_label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        config.labels.insert(key.into(), value.into());
    }
    config.taints = facts.flags.node_taint.iter().map(|taint| parse_taint(taint)).collect::<Result<_, _>>()?;
    let (ready, is_ready) = watch::channel(false);
    supervisor.start("kubelet", StopPolicy::Drain(Duration::from_secs(3)), move |cancel| {
        let mut config = config.clone();
        config.cancel = cancel;
        let ready = ready.clone();
        async move {
            kubelet::Kubelet::run(config, ready).await?;
            Ok(())
        }
    });
    Ok(is_ready)
}

fn parse_taint(text: &str) -> anyhow::Result<k8s_openapi::api::core::v1::Taint> {
    let (pair, effect) =
        text.rsplit_once(':').with_context(|| format!("--node-taint {text}: write KEY=VALUE:EFFECT"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    anyhow::ensure!(
        ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect),
        "--node-taint {text}: the effect must be NoSchedule, PreferNoSchedule or NoExecute"
    );
    Ok(k8s_openapi::api::core::v1::Taint {
        key: key.into(),
        value: Some(value.to_string()).filter(|value| !value.is_empty()),
        effect: effect.into(),
        ..Default::default()
    })
}

fn supervise_proxy(facts: &Facts, control_plane: &ControlPlane, supervisor: &Supervisor) {
    if facts.flags.disable.contains(&crate::config::Component::Proxy) {
        return;
    }
    let informers = control_plane.informers.clone();
    let (node_name, cluster_cidr) = (facts.node_name.clone(), facts.flags.cluster_cidr);
    supervisor.start("proxy", StopPolicy::Drop, move |cancel| {
        let config = network::proxy::Config {
            informers: informers.clone(),
            node_name: node_name.clone(),
            cluster_cidr,
            prefix: PREFIX.into(),
            cancel,
        };
        async move {
            network::proxy::run(config).await;
            Ok(())
        }
    });
}

fn supervise_dns(
    facts: &Facts,
    control_plane: &ControlPlane,
    supervisor: &Supervisor,
    network: watch::Receiver<Option<Arc<PodNetwork>>>,
) {
    if facts.flags.disable.contains(&crate::config::Component::Dns) {
        return;
    }
    let informers = control_plane.informers.clone();
    let (address, domain) = (facts.cluster_dns, facts.flags.cluster_domain.clone());
    supervisor.start("dns", StopPolicy::Drop, move |cancel| {
        let (informers, domain, mut network) = (informers.clone(), domain.clone(), network.clone());
        async move {
            // Its address is on the bridge, so the bridge comes first.
            network.wait_for(Option::is_some).await?;
            let config = dns::Config {
                informers,
                listen: vec![SocketAddr::new(address, 53)],
                domain,
                upstreams: dns::upstreams(Path::new("/etc/resolv.conf")),
                cancel,
            };
            dns::run(config).await?;
            Ok(())
        }
    });
}
