//! What the controllers are handed at start.

use std::{fmt, sync::Arc};

use client::{Client, Informers, Recorder};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{Descriptor, write::Writer};

/// Everything that comes from outside. Cloning is cheap.
#[derive(Clone)]
pub struct Context {
    /// Shared by all controllers; its user must be allowed to list and watch every resource.
    pub informers: Informers,
    /// Makes the client that writes as the given user.
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// Makes the recorder for events of the given component, for instance `deployment-controller`.
    pub recorder_for: Arc<dyn Fn(&str) -> Recorder + Send + Sync>,
    /// Stops every controller.
    pub cancel: CancellationToken,
    /// The wall clock.
    pub clock: Clock,
    /// The facts of this cluster.
    pub config: Arc<Config>,
}

/// Facts of the cluster that controllers publish or allocate from.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Certificates that clients in pods verify the API server with; published as `kube-root-ca.crt`.
    pub cluster_ca_pem: String,
    /// Ranges that nodes get their pod ranges from: at most one per address family. Empty: no range is assigned.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 pod range; 24 when zero.
    pub node_mask_v4: u8,
    /// Prefix length of a node's IPv6 pod range; 64 when zero.
    pub node_mask_v6: u8,
    /// Ranges of Service addresses, left out of the nodes' pod ranges when they overlap.
    pub service_cidrs: Vec<IpNet>,
    /// Signs approved certificate requests; without it they stay approved and unsigned.
    pub signing_ca: Option<SigningCa>,
    /// PEM private key that signs legacy service-account tokens kept in Secrets.
    pub service_account_key_pem: Option<String>,
    /// The `iss` of service-account tokens.
    pub service_account_issuer: String,
}

/// The key pair behind the built-in certificate signers.
#[derive(Clone)]
pub struct SigningCa {
    /// Certificate in PEM.
    pub certificate_pem: String,
    /// Private key in PEM (PKCS#8).
    pub key_pem: String,
}

impl fmt::Debug for SigningCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningCa").finish_non_exhaustive()
    }
}

/// The wall clock, replaceable in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

/// What one controller works with: the context plus its own identity.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) name: &'static str,
    pub(crate) context: Context,
    pub(crate) writer: Writer,
    pub(crate) recorder: Recorder,
}

impl Scope {
    pub(crate) fn new(context: &Context, descriptor: &Descriptor) -> Self {
        let user = match descriptor.account {
            "" => "system:kube-controller-manager".to_owned(),
            account => format!("system:serviceaccount:kube-system:{account}"),
        };
        Self {
            name: descriptor.name,
            context: context.clone(),
            writer: Writer::new((context.client_for)(&user)),
            recorder: (context.recorder_for)(descriptor.component),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.context.config
    }
}
