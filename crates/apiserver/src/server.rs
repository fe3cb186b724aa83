//! The server: what all requests share.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    allocator::Allocators,
    authn::Authenticator,
    authz::Authorizer,
    body::{self, Body, BoxError},
    catalog::{Catalog, Known},
    config::Config,
    health::Health,
    leases::Leases,
    pipeline::{self, flow::Flow},
    registry::caches::Caches,
    user::{User, UserInfo},
};

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {what}")]
    Read { what: &'static str, source: std::io::Error },
    #[error("{what} is not usable: {why}")]
    Material { what: &'static str, why: String },
    #[error("the datastore failed while {doing}")]
    Store { doing: &'static str, source: store::Error },
    #[error("cannot create {object} while bootstrapping the cluster: {status}")]
    Bootstrap { object: String, status: api::status::Status },
}

/// An API server over a store.
pub struct Server {
    config: Config,
    store: Arc<dyn Store>,
    catalog: ArcSwap<Catalog>,
    leases: Leases,
    caches: Caches,
    authenticator: Authenticator,
    authorizer: Authorizer,
    admission: Admission,
    allocators: Allocators,
    health: Health,
    flow: Flow,
    own_user: User,
    /// Ends watches when the server stops.
    draining: CancellationToken,
}

impl Server {
    /// Makes a server. It answers at once; [`Server::start`] fills what it needs to know of stored objects.
    pub fn new(config: Config, store: Arc<dyn Store>) -> Result<Arc<Self>, Error> {
        let catalog = Catalog::new(api::kinds::all().iter().map(Known::builtin));
        Ok(Arc::new(Self {
            caches: Caches::new(store.clone()),
            leases: Leases::new(store.clone(), config.event_ttl),
            authenticator: Authenticator::new(&config)?,
            authorizer: Authorizer::new(),
            admission: Admission::new(&config),
            allocators: Allocators::new(&config),
            health: Health::default(),
            flow: Flow::new(config.limits),
            catalog: ArcSwap::from_pointee(catalog),
            own_user: Arc::new(UserInfo::master("system:apiserver")),
            draining: CancellationToken::new(),
            config,
            store,
        }))
    }

    /// The way into the pipeline for callers in this process, behind authentication: every request is `user`'s.
    pub fn service(self: &Arc<Self>, user: UserInfo) -> Service {
        Service { server: self.clone(), user: Arc::new(user) }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn shared_store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn allocators(&self) -> &Allocators {
        &self.allocators
    }

    /// Named health checks.
    pub fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// In whose name the server itself acts.
    pub(crate) fn own_user(&self) -> &User {
        &self.own_user
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Everything needed to answer is there.
    pub fn ready(&self) -> bool {
        self.health.is_ready()
    }
}

/// [`Server::service`]: a `tower::Service` that calls the pipeline in this process.
#[derive(Clone)]
pub struct Service {
    server: Arc<Server>,
    user: User,
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        Box::pin(async move { Ok(pipeline::as_user(server, user, request.map(body::wrap)).await) })
    }
}
