//! `TokenReview` (whose token is this?) and `SelfSubjectReview` (who am I?).

use api::status::{FieldError, Status};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::Handler;
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{
        answer::{self, Answer},
        call::Call,
    },
    registry::{input, meta, output},
};

pub(crate) struct TokenReview;

#[async_trait]
impl Handler for TokenReview {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(output::offer(served))?;
        let mut review = input::object(call, served, body, "CreateOptions").await?;
        meta::check_type(&mut review, &served.api_version(), &served.resource.kind)?;
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_string();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> = review["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|audience| Some(audience.as_str()?.to_string()))
            .collect();
        if audiences.iter().any(String::is_empty) {
            let error = FieldError::required("spec.audiences", "must not be empty");
            return Err(Status::invalid(served.about_kind(""), vec![error]));
        }
        let server = &call.server;
        review["status"] = match server.authenticator().token_user(server, &token, &audiences).await {
            Some((user, matched)) => {
                let mut status = json!({"authenticated": true, "user": user.to_value()});
                let own = server.authenticator().tokens().map(|tokens| tokens.audiences().to_vec());
                let shown = if matched.is_empty() { own.unwrap_or_default() } else { matched };
                if !shown.is_empty() {
                    status["audiences"] = json!(shown);
                }
                status
            }
            None => json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"}),
        };
        meta::of(&mut review);
        answer::value(201, &review, accepted)
    }
}

pub(crate) struct SelfReview;

#[async_trait]
impl Handler for SelfReview {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(output::offer(served))?;
        let mut review = input::object(call, served, body, "CreateOptions").await?;
        meta::check_type(&mut review, &served.api_version(), &served.resource.kind)?;
        review["metadata"] = json!({"creationTimestamp": call.now});
        let user: Value = call.user.to_value();
        review["status"] = json!({"userInfo": user});
        answer::value(201, &review, accepted)
    }
}
