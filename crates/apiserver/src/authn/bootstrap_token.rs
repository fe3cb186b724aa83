//! Bootstrap tokens: `ID.SECRET`, kept as secrets `bootstrap-token-ID` in `kube-system`.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{clock, registry::read, server::Server, user::UserInfo};

const GROUP: &str = "system:bootstrappers";

/// The user of a valid bootstrap token.
pub(crate) async fn find(server: &Arc<Server>, token: &str) -> Option<UserInfo> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !plain(id, 6) || !plain(secret, 16) {
        return None;
    }
    let object = read::by_name(server, "", "secrets", "kube-system", &format!("bootstrap-token-{id}")).await.ok()??;
    if object["type"] != "bootstrap.kubernetes.io/token" || crate::registry::meta::is_deleting(&object) {
        return None;
    }
    let data = &object["data"];
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(field(data, "token-secret")?.as_bytes(), secret.as_bytes());
    if same.is_err() || field(data, "token-id")? != id {
        return None;
    }
    if let Some(expiry) = field(data, "expiration") {
        let at: jiff::Timestamp = expiry.parse().ok()?;
        if at.as_second() <= clock::unix() {
            return None;
        }
    }
    if field(data, "usage-bootstrap-authentication").as_deref() != Some("true") {
        return None;
    }
    let mut groups = vec![GROUP.to_string()];
    let extra = field(data, "auth-extra-groups").unwrap_or_default();
    groups.extend(
        extra.split(',').map(str::trim).filter(|group| group.starts_with("system:bootstrappers:")).map(Into::into),
    );
    Some(super::authenticated(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() }))
}

fn field(data: &Value, name: &str) -> Option<String> {
    let bytes = STANDARD.decode(data[name].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}
