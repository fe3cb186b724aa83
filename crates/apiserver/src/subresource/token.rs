//! `serviceaccounts/token`: a token for an account, bound to a pod, secret or node if the request says so.

use api::status::{About, FieldError, Status};
use async_trait::async_trait;
use rand::RngExt;
use serde_json::{Value, json};

use super::Handler;
use crate::{
    authn::service_account::{Bound, Claims, OneOrMany, Reference},
    authz::node,
    body::Body,
    catalog::Served,
    clock,
    pipeline::{
        accept::Offer,
        answer::{self, Answer},
        call::Call,
    },
    registry::{input, meta, options, read},
};

const DEFINITION: &str = "io.k8s.api.authentication.v1.TokenRequest";
/// Shortest life of a token that can be asked for, seconds.
const SHORTEST_S: i64 = 600;
const DEFAULT_S: i64 = 3600;
const LONGEST_S: i64 = 1 << 32;
/// A kubelet that asks for this many seconds asks for "an hour, refreshed", and older clients may not refresh: the token
/// itself lives a year and warns after the hour.
const REFRESHED_S: i64 = 3607;
const YEAR_S: i64 = 365 * 24 * 3600;

pub(crate) struct Token;

#[async_trait]
impl Handler for Token {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(Offer::OBJECTS)?;
        options::dry_run(&call.query, "CreateOptions")?;
        let mut request = input::other(call, body, DEFINITION, "TokenRequest", "v1").await?;
        let tokens = call.server.authenticator().tokens().ok_or_else(|| Status::not_found(served.about("token")))?;
        let namespace = &call.info.namespace;
        let name = call.info.path_name();
        let account = read::object(call, served, namespace, name).await?;
        let seconds = check(&request, name)?;

        let mut audiences: Vec<String> = request["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|audience| Some(audience.as_str()?.to_string()))
            .collect();
        if audiences.is_empty() {
            audiences = tokens.audiences().to_vec();
        }
        let now = clock::unix();
        let extended = seconds == REFRESHED_S && audiences == tokens.audiences();
        let expires = now + if extended { YEAR_S } else { seconds };
        let mut bound = Bound {
            namespace: namespace.clone(),
            serviceaccount: Reference { name: name.into(), uid: meta::uid(&account).into() },
            warnafter: extended.then_some(now + seconds),
            ..Bound::default()
        };
        bind(call, &request, name, &mut bound).await?;
        let claims = Claims {
            aud: OneOrMany::Many(audiences.clone()),
            exp: Some(expires),
            iat: Some(now),
            iss: tokens.issuer().into(),
            jti: Some(uuid::Uuid::from_u128(rand::rng().random()).to_string()),
            bound: Some(bound),
            nbf: Some(now),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            ..Claims::default()
        };
        let token = tokens.sign(&claims)?;
        request["kind"] = "TokenRequest".into();
        request["apiVersion"] = "authentication.k8s.io/v1".into();
        request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": call.now});
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        let shown = now + seconds;
        request["status"] = json!({"token": token, "expirationTimestamp": clock::plus(&call.now, shown - now)});
        answer::value(201, &request, accepted)
    }
}

/// The life that is asked for, in seconds.
fn check(request: &Value, name: &str) -> Result<i64, Status> {
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_S);
    let field = "spec.expirationSeconds";
    let error = if seconds < SHORTEST_S {
        FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > LONGEST_S {
        FieldError::invalid(field, seconds, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(seconds);
    };
    Err(Status::invalid(About { group: "authentication.k8s.io", resource: "TokenRequest", name }, vec![error]))
}

/// Looks up what the token is to be bound to.
async fn bind(call: &Call, request: &Value, account: &str, bound: &mut Bound) -> Result<(), Status> {
    let reference = &request["spec"]["boundObjectRef"];
    if reference.is_null() {
        if node::node_of(&call.user).is_some() {
            return Err(Status::forbidden(
                About { group: "", resource: "serviceaccounts", name: account },
                "node requested token not bound to a pod",
            ));
        }
        return Ok(());
    }
    let text = |member: &str| reference[member].as_str().unwrap_or_default();
    let name = text("name");
    let namespace = &call.info.namespace;
    let find = async |plural: &str, namespace: &str| {
        let found = read::by_name(&call.server, "", plural, namespace, name).await?;
        found.ok_or_else(|| Status::not_found(About { group: "", resource: plural, name }))
    };
    let (plural, object) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", find("pods", namespace).await?),
        ("v1", "Secret") => ("secrets", find("secrets", namespace).await?),
        ("v1", "Node") => ("nodes", find("nodes", "").await?),
        (version, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to object {version}, Kind={kind}"
            )));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != meta::uid(&object) {
        return Err(Status::conflict(
            About { group: "", resource: plural, name },
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let own = Reference { name: name.into(), uid: meta::uid(&object).into() };
    match plural {
        "pods" => {
            let of = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if of != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
            if !node.is_empty() {
                let uid = read::by_name(&call.server, "", "nodes", "", node)
                    .await?
                    .map(|node| meta::uid(&node).to_string())
                    .unwrap_or_default();
                bound.node = Some(Reference { name: node.into(), uid });
            }
            bound.pod = Some(own);
        }
        "secrets" => bound.secret = Some(own),
        _ => bound.node = Some(own),
    }
    Ok(())
}
