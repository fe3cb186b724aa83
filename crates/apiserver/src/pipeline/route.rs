//! From what is asked to who answers: resources and their subresources through the catalog, other paths by a table.

use api::{kind::Part, status::Status};
use futures::future::BoxFuture;

use super::{answer::Answer, call::Call};
use crate::{authn, body::Body, catalog::Served, discovery, health, metrics, registry, registry::options, subresource};

/// Boxed: the futures behind it are large, and most requests need one of them only.
pub(crate) fn handle(call: &Call, body: Body) -> BoxFuture<'_, Answer> {
    if call.info.is_resource { Box::pin(resource(call, body)) } else { Box::pin(path(call)) }
}

async fn resource(call: &Call, body: Body) -> Answer {
    let info = &call.info;
    let Some(served) = call.catalog.find(&info.group, &info.version, &info.resource) else {
        return Err(Status::no_such_path());
    };
    if let Some(warning) = &served.version().deprecation_warning {
        call.warn(warning.clone());
    }
    if info.subresource.is_empty() {
        if let Some(handler) = subresource::virtual_resource(&served) {
            return handler.handle(call, &served, body).await;
        }
        return registry::handle(call, &served, body).await;
    }
    registry::check_scope(call, &served)?;
    subresource(call, &served, body).await
}

async fn subresource(call: &Call, served: &Served, body: Body) -> Answer {
    let info = &call.info;
    let Some(facts) = served.subresource(&info.subresource) else { return Err(Status::no_such_path()) };
    if let Some(handler) = subresource::find(served, &info.subresource) {
        return handler.handle(call, served, body).await;
    }
    if !facts.verbs.iter().any(|verb| verb == info.verb) {
        return Err(Status::method_not_allowed_on_path());
    }
    if info.subresource == "scale" {
        return registry::scale::handle(call, served, body).await;
    }
    let part = options::part(&info.subresource);
    debug_assert!(part != Part::Main);
    match info.verb {
        "get" => registry::get::handle(call, served, info.path_name()).await,
        "update" => registry::update::put(call, served, info.path_name(), body, part).await,
        "patch" => registry::patch::handle(call, served, info.path_name(), body, part).await,
        _ => Err(Status::method_not_allowed_on_path()),
    }
}

async fn path(call: &Call) -> Answer {
    let path = call.info.path.as_str();
    if !matches!(call.info.verb, "get" | "head") {
        return Err(Status::method_not_allowed_on_path());
    }
    let trimmed = path.trim_end_matches('/');
    match trimmed.split('/').nth(1).unwrap_or_default() {
        "" => discovery::paths::index(call),
        "api" | "apis" => discovery::handle(call, trimmed),
        "openapi" => discovery::openapi::handle(call, trimmed).await,
        "version" if trimmed == "/version" => discovery::version::handle(call),
        "healthz" | "livez" | "readyz" => health::handle(call, trimmed).await,
        "metrics" if trimmed == "/metrics" => metrics::handle(call).await,
        ".well-known" | "openid" => authn::jwks::handle(call, trimmed),
        _ => Err(Status::no_such_path()),
    }
}
