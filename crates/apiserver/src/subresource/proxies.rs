//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP to what runs in the cluster.

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::Handler;
use crate::{
    body::{self, Body},
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
    proxy::{
        backend::{self, Target},
        forward,
    },
};

/// What stands behind the path.
pub(crate) enum Proxy {
    Node,
    Pod,
    Service,
}

#[async_trait]
impl Handler for Proxy {
    async fn handle(&self, call: &Call, _: &Served, body: Body) -> Answer {
        let Some(path) = &call.info.rest else {
            // Relative links work only below a directory.
            return Ok(redirect(call));
        };
        let named = call.info.path_name();
        let target = match self {
            Self::Node => backend::kubelet(call, named.split(':').next().unwrap_or_default()).await?,
            Self::Pod => {
                let target = Target::parse(named)?;
                target.pod(&backend::pod(call, target.name()).await?)?
            }
            Self::Service => Target::parse(named)?.service(call, &call.info.namespace).await?,
        };
        let pairs = call.query.pairs();
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let path = if query.is_empty() { format!("/{path}") } else { format!("/{path}?{query}") };
        let mut extra = HeaderMap::new();
        let prefix = call.info.path.strip_suffix(call.info.rest.as_deref().unwrap_or_default());
        if let Some(prefix) = prefix.and_then(|prefix| HeaderValue::try_from(prefix).ok()) {
            extra.insert("x-forwarded-uri", prefix);
        }
        forward::forward(call, &target, &path, extra, body).await
    }
}

fn redirect(call: &Call) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::try_from(format!("{}/", call.info.path)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
