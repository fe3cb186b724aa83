//! Acting as somebody else: the `Impersonate-*` headers, each of which needs the right to impersonate.

use std::{collections::BTreeMap, sync::Arc};

use api::status::{About, Status};
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::{
    authz::{Attributes, Decision},
    server::Server,
    user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, UserInfo},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user that the request is made as; the headers are taken out.
pub(crate) async fn resolve(server: &Arc<Server>, user: User, headers: &mut HeaderMap) -> Result<User, Status> {
    let named: Vec<http::HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    if named.is_empty() {
        return Ok(user);
    }
    let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_string).collect()
    };
    let name = all(headers, USER).into_iter().next().unwrap_or_default();
    let mut groups = all(headers, GROUP);
    let uid = all(headers, UID).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in &named {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().extend(all(headers, header.as_str()));
        }
    }
    for header in &named {
        headers.remove(header);
    }
    if name.is_empty() {
        return Err(Status::bad_request("requested impersonation without impersonating a user: set Impersonate-User"));
    }
    check(server, &user, &name, &groups, &uid, &extra).await?;
    let mut acting = UserInfo { name: name.clone(), uid, groups: Vec::new(), extra };
    if let Some((namespace, account)) = acting.as_service_account() {
        let implied = UserInfo::service_account(namespace, account, "");
        for group in implied.groups {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
    } else if name == ANONYMOUS {
        if !groups.iter().any(|group| group == UNAUTHENTICATED) {
            groups.push(UNAUTHENTICATED.into());
        }
    } else if !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    acting.groups = groups;
    Ok(Arc::new(acting))
}

async fn check(
    server: &Arc<Server>,
    user: &User,
    name: &str,
    groups: &[String],
    uid: &str,
    extra: &BTreeMap<String, Vec<String>>,
) -> Result<(), Status> {
    for attributes in wanted(user, name, groups, uid, extra) {
        if let Decision::Denied(why) = server.authorizer().decide(server, &attributes).await {
            let about = About { group: &attributes.group, resource: &attributes.resource, name: &attributes.name };
            return Err(Status::forbidden(about, attributes.denial(&why)));
        }
    }
    Ok(())
}

/// What the user must be allowed to act as these.
fn wanted(
    user: &User,
    name: &str,
    groups: &[String],
    uid: &str,
    extra: &BTreeMap<String, Vec<String>>,
) -> Vec<Attributes> {
    let one = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::resource(user.clone())
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut wanted = vec![match account {
        Some((namespace, account)) => one("", "serviceaccounts", "", namespace, account),
        None => one("", "users", "", "", name),
    }];
    wanted.extend(groups.iter().map(|group| one("", "groups", "", "", group)));
    if !uid.is_empty() {
        wanted.push(one("authentication.k8s.io", "uids", "", "", uid));
    }
    for (key, values) in extra {
        wanted.extend(values.iter().map(|value| one("authentication.k8s.io", "userextras", key, "", value)));
    }
    wanted
}
