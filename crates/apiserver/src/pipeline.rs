//! The way of a request: authenticate, find out what is asked, take a seat, authorize, route, answer.
//!
//! Every request of the server goes through [`from_network`] or [`as_user`]; they differ in who says who the user is.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod flow;
pub(crate) mod info;
pub(crate) mod query;
pub(crate) mod route;

use std::sync::Arc;

use api::status::Status;
use http::{HeaderName, HeaderValue, Request, Response};

use self::{accept::Offer, call::Call, info::RequestInfo, query::Query};
use crate::{
    authn::{self, Peer},
    body::Body,
    metrics,
    server::Server,
    user::User,
};

/// A request from a connection: credentials are in its headers or its client certificate.
pub(crate) async fn from_network(server: Arc<Server>, peer: &Peer, mut request: Request<Body>) -> Response<Body> {
    match server.authenticator().authenticate(&server, peer, request.headers_mut()).await {
        Ok(user) => as_user(server, user, request).await,
        Err(status) => refuse(&request, &status),
    }
}

/// A request of a known user.
pub(crate) async fn as_user(server: Arc<Server>, user: User, request: Request<Body>) -> Response<Body> {
    let started = std::time::Instant::now();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let (mut parts, body) = request.into_parts();
    let user = match authn::impersonate::resolve(&server, user, &mut parts.headers).await {
        Ok(user) => user,
        Err(status) => {
            let accepted = accept::negotiate(&parts.headers, false, Offer::PLAIN).ok();
            return answer::status(&status, accepted);
        }
    };
    let headers = parts.headers;
    let call = Call::new(server, user, parts.method, headers, query, info).with_extensions(parts.extensions);
    let audit_id = audit_id(&call);
    let mut response = match run(&call, body).await {
        Ok(response) => response,
        Err(status) => answer::status(&status, call.negotiate(Offer::PLAIN).ok()),
    };
    answer::add_warnings(&mut response, call.take_warnings());
    response.headers_mut().insert(HeaderName::from_static("audit-id"), audit_id);
    response.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    metrics::request(&call, response.status().as_u16(), started.elapsed());
    response
}

async fn run(call: &Call, body: Body) -> answer::Answer {
    let server = call.server.clone();
    let _seat = server.flow().seat(call).await?;
    server.authorizer().check(call).await?;
    if call.is_long_running() {
        return route::handle(call, body).await;
    }
    let limit = server.config().limits.request_timeout;
    match tokio::time::timeout(limit, route::handle(call, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::timeout(format!(
            "request did not complete within the allotted timeout of {} seconds",
            limit.as_secs()
        ))),
    }
}

fn audit_id(call: &Call) -> HeaderValue {
    let given = call.headers.get("audit-id").filter(|id| !id.is_empty() && id.len() <= 64).cloned();
    given.unwrap_or_else(|| {
        // A UUID is ASCII.
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static(""))
    })
}

fn refuse(request: &Request<Body>, status: &Status) -> Response<Body> {
    answer::status(status, accept::negotiate(request.headers(), false, Offer::PLAIN).ok())
}
