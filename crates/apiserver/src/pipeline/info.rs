//! What a request asks for, read from its method and path alone.
//!
//! Resource paths are `/api/VERSION/...` and `/apis/GROUP/VERSION/...`; everything else is a non-resource path.

use http::Method;
use percent_encoding::percent_decode_str;

use super::query::Query;

/// Subresources of a namespace: in `/namespaces/NAME/X` every other X is a resource inside the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The request's attributes, as authorization and routing use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for a non-resource path the
    /// HTTP method in lower case.
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// What follows the subresource, without a leading slash: the path for a proxy.
    pub(crate) rest: Option<String>,
    /// The name came from a field selector and not from the path.
    pub(crate) name_from_selector: bool,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, raw_path: &str, query: &Query) -> Self {
        let plain = Self { verb: method_verb(method), path: decode(raw_path), ..Self::default() };
        let trimmed = raw_path.trim_matches('/');
        let mut parts: Vec<&str> = trimmed.split('/').collect();
        let minimum = match parts[0] {
            "api" => 3,
            "apis" => 4,
            _ => return plain,
        };
        if parts.len() < minimum {
            return plain;
        }
        let mut info = Self { is_resource: true, ..plain };
        if parts[0] == "apis" {
            info.group = decode(parts[1]);
        }
        info.version = decode(parts[minimum - 2]);
        parts.drain(..minimum - 1);
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let mut by_prefix = false;
        if parts[0] == "watch" && parts.len() > 1 {
            info.verb = "watch";
            by_prefix = true;
            parts.remove(0);
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = decode(parts[1]);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        info.resource = decode(parts[0]);
        info.name = parts.get(1).map(|part| decode(part)).unwrap_or_default();
        if !by_prefix {
            info.subresource = parts.get(2).map(|part| decode(part)).unwrap_or_default();
        }
        if parts.len() > 3 {
            let slash = if raw_path.ends_with('/') { "/" } else { "" };
            info.rest = Some(parts[3..].join("/") + slash);
        } else if parts.len() == 3 && raw_path.ends_with('/') {
            info.rest = Some(String::new());
        }
        if info.name.is_empty() {
            match info.verb {
                "get" => info.verb = if query.flag("watch") { "watch" } else { "list" },
                "delete" => info.verb = "deletecollection",
                _ => {}
            }
            if matches!(info.verb, "list" | "watch" | "deletecollection")
                && let Some(name) = query.text("fieldSelector").and_then(selected_name)
            {
                info.name = name;
                info.name_from_selector = true;
            }
        }
        info
    }

    /// The name, when it stands in the path.
    pub(crate) fn path_name(&self) -> &str {
        if self.name_from_selector { "" } else { &self.name }
    }
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// The one name that a field selector lets through, if it is a possible path segment.
fn selected_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let usable = !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '%']);
        (field == "metadata.name" && usable).then(|| value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, url: &str, expect: &str) {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let info = RequestInfo::parse(&method, path, &Query::parse(query));
        let got = if info.is_resource {
            format!(
                "{} {}/{} ns={} {}/{} {} rest={:?}",
                info.verb,
                info.group,
                info.version,
                info.namespace,
                info.resource,
                info.subresource,
                info.name,
                info.rest
            )
        } else {
            format!("{} {}", info.verb, info.path)
        };
        assert_eq!(got, expect, "{method} {url}");
    }

    #[test]
    fn paths_become_attributes() {
        check(Method::GET, "/api", "get /api");
        check(Method::GET, "/apis/apps/v1", "get /apis/apps/v1");
        check(Method::POST, "/healthz", "post /healthz");
        check(Method::GET, "/api/v1/pods", "list /v1 ns= pods/  rest=None");
        check(Method::GET, "/api/v1/pods?watch=1", "watch /v1 ns= pods/  rest=None");
        check(Method::GET, "/api/v1/watch/pods", "watch /v1 ns= pods/  rest=None");
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 ns=a namespaces/ a rest=None");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces/finalize a rest=None");
        check(Method::GET, "/api/v1/namespaces/a/pods/p/log", "get /v1 ns=a pods/log p rest=None");
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 ns=a deployments/  rest=None",
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a/services/s:80/proxy/x/y/",
            "get /v1 ns=a services/proxy s:80 rest=Some(\"x/y/\")",
        );
        check(
            Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 ns= clusterroles/ system:node rest=None",
        );
        check(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1 ns= pods/ x rest=None");
    }
}
