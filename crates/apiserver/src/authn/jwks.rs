//! What relying parties need to verify service-account tokens themselves: OIDC discovery and the public keys.

use api::status::Status;
use serde_json::json;

use crate::pipeline::{
    answer::{self, Answer},
    call::Call,
};

pub(crate) fn handle(call: &Call, path: &str) -> Answer {
    let Some(tokens) = call.server.authenticator().tokens() else { return Err(Status::no_such_path()) };
    let (document, media_type) = match path {
        "/.well-known/openid-configuration" => {
            let issuer = tokens.issuer();
            let document = json!({
                "issuer": issuer,
                "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": tokens.algorithms(),
            });
            (document, "application/json")
        }
        "/openid/v1/jwks" => (json!({"keys": tokens.jwks()}), "application/jwk-set+json"),
        _ => return Err(Status::no_such_path()),
    };
    let mut response = answer::bytes(200, media_type, document.to_string());
    let age = http::HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(http::header::CACHE_CONTROL, age);
    Ok(response)
}
