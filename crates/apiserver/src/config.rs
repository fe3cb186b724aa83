//! What a server is told before it starts.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::user::UserInfo;

/// PEM data, in memory or in a file that is read again when it changes.
#[derive(Clone, Debug)]
pub enum Pem {
    Data(Arc<[u8]>),
    File(PathBuf),
}

impl Pem {
    pub fn data(pem: impl AsRef<[u8]>) -> Self {
        Self::Data(pem.as_ref().into())
    }

    /// The PEM bytes as they are now.
    pub fn load(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Data(data) => Ok(data.to_vec()),
            Self::File(path) => std::fs::read(path),
        }
    }
}

/// A certificate chain with its private key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: Pem,
    pub key: Pem,
}

/// Material for serving HTTPS.
#[derive(Clone, Debug)]
pub struct Tls {
    pub identity: Identity,
    /// Signs the client certificates that authenticate users; `None`: client certificates are not asked for.
    pub client_ca: Option<Pem>,
}

/// Service-account tokens: who signs them and in whose name.
#[derive(Clone, Debug)]
pub struct ServiceAccountKeys {
    /// PKCS#8 private keys (RSA or ECDSA P-256); the first one signs, all of them verify.
    pub keys: Vec<Pem>,
    /// `iss` of issued tokens, the first one; tokens of all are accepted.
    pub issuers: Vec<String>,
    /// Audiences of the API itself.
    pub audiences: Vec<String>,
}

/// How the server reaches kubelets.
#[derive(Clone, Debug)]
pub struct KubeletAccess {
    /// Client certificate that kubelets authorize.
    pub identity: Identity,
    /// Signs kubelets' serving certificates.
    pub ca: Pem,
}

/// How another component's proxied requests prove who they act for (request-header authentication).
#[derive(Clone, Debug)]
pub struct RequestHeader {
    /// Client certificate with which aggregated API servers are called.
    pub identity: Identity,
    /// Signs that certificate; published in `kube-system/extension-apiserver-authentication`.
    pub ca: Pem,
    /// Common names that may vouch for users.
    pub allowed_names: Vec<String>,
}

/// Limits that keep one client from starving the others.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in flight that only read; watches are not counted.
    pub max_reads: usize,
    /// Requests in flight that write.
    pub max_writes: usize,
    /// A request that is not a watch or an upgrade ends after this time.
    pub request_timeout: Duration,
}

/// Configuration of a server. [`Config::default`] is a server in memory: no TLS material, no kubelets.
#[derive(Clone, Debug)]
pub struct Config {
    pub tls: Option<Tls>,
    pub service_accounts: Option<ServiceAccountKeys>,
    /// Users by bearer token.
    pub tokens: Vec<(String, UserInfo)>,
    /// Accept `bootstrap.kubernetes.io/token` secrets.
    pub bootstrap_tokens: bool,
    /// Requests without credentials are `system:anonymous`, not 401.
    pub anonymous: bool,
    /// Where clients reach the API: the `kubernetes` Service's endpoint.
    pub advertise_address: Option<IpAddr>,
    pub advertise_port: u16,
    /// Cluster addresses of Services come from here; one per family, the first is the default family.
    pub service_cidrs: Vec<IpNet>,
    /// Node ports, both ends included.
    pub node_ports: (u16, u16),
    pub cluster_domain: String,
    /// Largest request body.
    pub max_body_bytes: usize,
    pub limits: Limits,
    pub kubelet: Option<KubeletAccess>,
    pub request_header: Option<RequestHeader>,
    /// Published to every namespace's pods as `kube-root-ca.crt` by a controller; here for cluster-info.
    pub cluster_ca: Option<Pem>,
    /// Events are forgotten after this time.
    pub event_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: None,
            service_accounts: None,
            tokens: Vec::new(),
            bootstrap_tokens: true,
            anonymous: true,
            advertise_address: None,
            advertise_port: 6443,
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 43, 0, 0), 16))],
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".into(),
            max_body_bytes: 3 * 1024 * 1024,
            limits: Limits { max_reads: 400, max_writes: 200, request_timeout: Duration::from_secs(60) },
            kubelet: None,
            request_header: None,
            cluster_ca: None,
            event_ttl: Duration::from_secs(3600),
        }
    }
}
