//! The control plane: certificates, datastore, API server, controllers, scheduler.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use apiserver::{Identity, KubeletAccess, Pem, RequestHeader, ServiceAccountKeys, Tls, UserInfo};
use client::{Client, Informers, Recorder};
use store::{Embedded, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Component, Server as Flags},
    kubeconfig,
    layout::Layout,
    machine,
    pki::{self, Authority, Leaf},
    supervisor::{StopPolicy, Supervisor},
};

/// Names under which leaf certificates are kept.
const SERVING: &str = "serving-apiserver";
const TO_KUBELETS: &str = "client-apiserver";
const TO_AGGREGATED: &str = "client-aggregator";
const ADMIN: &str = "client-admin";
pub(crate) const KUBELET_SERVING: &str = "serving-kubelet";

/// Certificates are looked at this often; one that is renewed is picked up without a restart.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Facts of this cluster and node that flags and the machine gave together.
#[derive(Clone, Debug)]
pub struct Facts {
    pub flags: Flags,
    pub layout: Layout,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub advertise: IpAddr,
    pub cluster_dns: IpAddr,
}

impl Facts {
    pub fn new(flags: Flags) -> anyhow::Result<Self> {
        let layout = Layout::new(std::path::absolute(&flags.data_dir)?);
        let node_ip = flags.node_ip.unwrap_or_else(machine::address);
        let tenth = flags.service_cidr.hosts().nth(9);
        let cluster_dns = flags.cluster_dns.or(tenth).with_context(|| {
            format!("--service-cidr {} is too small: it must hold at least ten addresses", flags.service_cidr)
        })?;
        Ok(Self {
            node_name: flags.node_name.clone().unwrap_or_else(machine::host_name),
            node_ip,
            advertise: flags.advertise_address.unwrap_or(node_ip),
            cluster_dns,
            layout,
            flags,
        })
    }

    fn issuer(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.flags.cluster_domain)
    }

    /// Where a client on this machine reaches the API.
    fn local_url(&self) -> String {
        let address = match self.flags.bind_address {
            IpAddr::V4(address) if address.is_unspecified() => "127.0.0.1".into(),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) if address.is_unspecified() => "[::1]".into(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        format!("https://{address}:{}", self.flags.https_listen_port)
    }
}

/// The cluster's authorities.
pub struct Authorities {
    pub server: Authority,
    pub client: Authority,
    proxy: Authority,
}

impl Authorities {
    pub fn open(layout: &Layout) -> Result<Self, pki::Error> {
        let tls = layout.tls();
        Ok(Self {
            server: Authority::open(&tls, "server-ca")?,
            client: Authority::open(&tls, "client-ca")?,
            proxy: Authority::open(&tls, "proxy-ca")?,
        })
    }

    /// Issues what is missing or near its end.
    fn issue(&self, facts: &Facts) -> Result<(), pki::Error> {
        let domain = &facts.flags.cluster_domain;
        let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .into_iter()
            .map(str::to_string)
            .collect();
        names.push(format!("kubernetes.default.svc.{domain}"));
        names.extend([
            "127.0.0.1".to_string(),
            "::1".to_string(),
            facts.advertise.to_string(),
            facts.node_ip.to_string(),
        ]);
        names.push(facts.node_name.clone());
        names.extend(facts.flags.service_cidr.hosts().next().map(|first| first.to_string()));
        if !facts.flags.bind_address.is_unspecified() {
            names.push(facts.flags.bind_address.to_string());
        }
        names.extend(facts.flags.tls_san.iter().cloned());
        names.sort();
        names.dedup();
        self.server.leaf(SERVING, &Leaf { common_name: "kube-apiserver".into(), names, ..Leaf::default() })?;
        let mut kubelet_names = vec![facts.node_name.clone(), facts.node_ip.to_string(), "127.0.0.1".to_string()];
        kubelet_names.sort();
        kubelet_names.dedup();
        self.server.leaf(
            KUBELET_SERVING,
            &Leaf {
                common_name: format!("system:node:{}", facts.node_name),
                organization: Some("system:nodes".into()),
                names: kubelet_names,
            },
        )?;
        let client = |name: &str, group: Option<&str>| Leaf {
            common_name: name.into(),
            organization: group.map(str::to_string),
            names: Vec::new(),
        };
        self.client.leaf(TO_KUBELETS, &client("kube-apiserver-kubelet-client", Some("system:masters")))?;
        self.client.leaf(ADMIN, &client("system:admin", Some("system:masters")))?;
        self.proxy.leaf(TO_AGGREGATED, &client("system:auth-proxy", None))?;
        Ok(())
    }
}

fn identity(layout: &Layout, name: &str) -> Identity {
    let path = |extension: &str| Pem::File(layout.tls().join(format!("{name}.{extension}")));
    Identity { certificate: path("crt"), key: path("key") }
}

/// A running control plane.
pub struct ControlPlane {
    pub server: Arc<apiserver::Server>,
    pub authorities: Arc<Authorities>,
    /// Informers of the whole cluster, shared by every component but the kubelet.
    pub informers: Informers,
    store: Embedded,
}

impl ControlPlane {
    /// Opens the data directory, answers on the API's port, and makes what every cluster has.
    pub async fn start(facts: &Facts, supervisor: &Supervisor, cancel: &CancellationToken) -> anyhow::Result<Self> {
        let layout = &facts.layout;
        let flags = &facts.flags;
        if let Some(endpoint) = &flags.datastore_endpoint {
            anyhow::bail!(
                "--datastore-endpoint {endpoint}: this version has only the embedded datastore; leave it out"
            );
        }
        let address = (flags.bind_address, flags.https_listen_port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {}:{}; choose another --https-listen-port", address.0, address.1)
        })?;
        let authorities = Arc::new(Authorities::open(layout)?);
        authorities.issue(facts)?;
        let signing = pki::signing_key(&layout.tls(), "service-account")?;
        let options = store::embedded::Options {
            transformer: Some(Arc::new(apiserver::Sealer::new(&[pki::secret(&layout.encryption_key())?])?)),
            ..store::embedded::Options::default()
        };
        let store = Embedded::open(layout.database(), options)?;
        let config = apiserver::Config {
            tls: Some(Tls {
                identity: identity(layout, SERVING),
                client_ca: Some(Pem::data(&authorities.client.certificate)),
            }),
            service_accounts: Some(ServiceAccountKeys {
                keys: vec![Pem::data(&signing)],
                issuers: vec![facts.issuer()],
                audiences: vec![facts.issuer(), "navarch".into()],
            }),
            tokens: flags.token.iter().map(|token| (token.clone(), UserInfo::master("token-admin"))).collect(),
            advertise_address: Some(facts.advertise),
            advertise_port: flags.https_listen_port,
            service_cidrs: vec![flags.service_cidr],
            node_ports: flags.service_node_port_range,
            cluster_domain: flags.cluster_domain.clone(),
            kubelet: Some(KubeletAccess {
                identity: identity(layout, TO_KUBELETS),
                ca: Pem::data(&authorities.server.certificate),
            }),
            request_header: Some(RequestHeader {
                identity: identity(layout, TO_AGGREGATED),
                ca: Pem::data(&authorities.proxy.certificate),
                allowed_names: vec!["system:auth-proxy".into()],
            }),
            cluster_ca: Some(Pem::data(&authorities.server.certificate)),
            ..apiserver::Config::default()
        };
        let server = apiserver::Server::new(config, Arc::new(store.clone()) as Arc<dyn Store>)?;
        server.bootstrap().await?;
        serve(&server, listener, supervisor);
        write_kubeconfig(facts, &authorities)?;
        renew(facts, &authorities, supervisor);
        let client = client_for(&server, UserInfo::new("system:kube-controller-manager", &["system:authenticated"]));
        let informers = Informers::new(client, cancel.clone());
        Ok(Self { server, authorities, informers, store })
    }

    /// A client that acts as `user`, by a function call.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        let mut all = vec!["system:authenticated"];
        all.extend(groups);
        client_for(&self.server, UserInfo::new(user, &all))
    }

    /// Starts the controllers and the scheduler.
    pub fn start_loops(&self, facts: &Facts, supervisor: &Supervisor) -> anyhow::Result<()> {
        let disabled = |component| facts.flags.disable.contains(&component);
        if !disabled(Component::Scheduler) {
            let client = self.client("system:kube-scheduler", &[]);
            let informers = self.informers.clone();
            supervisor.start("scheduler", StopPolicy::Drop, move |cancel| {
                let recorder = Recorder::new(client.clone(), "default-scheduler", "");
                let config = scheduler::Config {
                    name: "default-scheduler".into(),
                    informers: informers.clone(),
                    client: client.clone(),
                    recorder,
                    cancel,
                };
                async move {
                    scheduler::run(config).await;
                    Ok(())
                }
            });
        }
        if !disabled(Component::Controllers) {
            let config = Arc::new(controllers::Config {
                cluster_ca_pem: self.authorities.server.certificate.clone(),
                cluster_cidrs: vec![facts.flags.cluster_cidr],
                service_cidrs: vec![facts.flags.service_cidr],
                signing_ca: Some(controllers::SigningCa {
                    certificate_pem: self.authorities.client.certificate.clone(),
                    key_pem: self.authorities.client.key.clone(),
                }),
                service_account_key_pem: Some(pki::signing_key(&facts.layout.tls(), "service-account")?),
                service_account_issuer: facts.issuer(),
                ..controllers::Config::default()
            });
            let server = Arc::clone(&self.server);
            let informers = self.informers.clone();
            supervisor.start("controllers", StopPolicy::Drain(Duration::from_secs(2)), move |cancel| {
                let for_clients = Arc::clone(&server);
                let client_of = Arc::new(move |user: &str| client_for(&for_clients, service_account(user)));
                let recorder_client =
                    client_for(&server, UserInfo::new("system:kube-controller-manager", &["system:authenticated"]));
                let context = controllers::Context {
                    informers: informers.clone(),
                    client_for: client_of,
                    recorder_for: Arc::new(move |component| Recorder::new(recorder_client.clone(), component, "")),
                    cancel,
                    clock: controllers::Clock::system(),
                    config: Arc::clone(&config),
                };
                async move {
                    let handles = controllers::start(&context, &[]).map_err(anyhow::Error::msg)?;
                    for handle in handles {
                        handle.await?;
                    }
                    Ok(())
                }
            });
        }
        Ok(())
    }

    /// Writes what is left and lets go of the data directory.
    pub fn close(&self) {
        self.store.close();
    }
}

fn client_for(server: &Arc<apiserver::Server>, user: UserInfo) -> Client {
    client::in_process(server.service(user))
}

/// The user of a service account, with the groups that its token would give it.
fn service_account(user: &str) -> UserInfo {
    let parts = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match parts {
        Some((namespace, name)) => UserInfo::service_account(namespace, name, ""),
        None => UserInfo::new(user, &["system:authenticated"]),
    }
}

fn serve(server: &Arc<apiserver::Server>, listener: TcpListener, supervisor: &Supervisor) {
    let server = Arc::clone(server);
    let listener = listener.into_std().map(Arc::new);
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot hand the listener over");
            return;
        }
    };
    supervisor.start("apiserver", StopPolicy::Drain(Duration::from_secs(5)), move |cancel| {
        let (server, listener) = (Arc::clone(&server), Arc::clone(&listener));
        async move {
            let listener = TcpListener::from_std(listener.try_clone()?)?;
            server.serve(listener, cancel).await?;
            Ok(())
        }
    });
}

fn write_kubeconfig(facts: &Facts, authorities: &Authorities) -> anyhow::Result<()> {
    let admin = authorities.client.leaf(
        ADMIN,
        &Leaf { common_name: "system:admin".into(), organization: Some("system:masters".into()), names: Vec::new() },
    )?;
    let text = kubeconfig::render(&facts.local_url(), &authorities.server.certificate, &admin);
    let path = facts.flags.write_kubeconfig.clone().unwrap_or_else(|| facts.layout.kubeconfig());
    Ok(pki::write(&path, &text, 0o600)?)
}

/// Keeps certificates from ending while the process lives.
fn renew(facts: &Facts, authorities: &Arc<Authorities>, supervisor: &Supervisor) {
    let (facts, authorities) = (facts.clone(), Arc::clone(authorities));
    supervisor.start("certificates", StopPolicy::Drop, move |cancel| {
        let (facts, authorities) = (facts.clone(), Arc::clone(&authorities));
        async move {
            let mut interval = tokio::time::interval(RENEWAL_INTERVAL);
            interval.tick().await;
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = cancel.cancelled() => return Ok(()),
                }
                authorities.issue(&facts)?;
                write_kubeconfig(&facts, &authorities)?;
            }
        }
    });
}
