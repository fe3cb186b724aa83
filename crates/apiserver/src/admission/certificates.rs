//! `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`: who may approve and sign requests,
//! and what no request may ask for.

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Ticket};
use crate::{
    authn::certificate,
    authz::{self, Decision},
    user::MASTERS,
};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

fn is_update_of(attributes: &Attributes<'_>, subresource: &str) -> bool {
    attributes.operation == Operation::Update
        && attributes.resource_is(GROUP, PLURAL)
        && attributes.subresource == subresource
}

/// Whether the user may `verb` requests of this signer, by its name or by all of its domain.
async fn may(attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_string(), format!("{domain}/*")] {
        let wanted = authz::Attributes {
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..authz::Attributes::resource(attributes.call.user.clone())
        };
        if let Decision::Allowed(_) = attributes.server().authorizer().decide(attributes.server(), &wanted).await {
            return true;
        }
    }
    false
}

fn signer(attributes: &Attributes<'_>) -> String {
    attributes.old.and_then(|old| old["spec"]["signerName"].as_str()).unwrap_or_default().into()
}

pub(crate) struct CertificateApproval;

#[async_trait]
impl Plugin for CertificateApproval {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is_update_of(attributes, "approval")
    }

    async fn validate(&self, attributes: &Attributes<'_>, _: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let signer = signer(attributes);
        if may(attributes, "approve", &signer).await {
            return Ok(None);
        }
        Err(attributes.forbid(format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

pub(crate) struct CertificateSigning;

#[async_trait]
impl Plugin for CertificateSigning {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is_update_of(attributes, "status")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let (Some(new), Some(old)) = (object, attributes.old) else { return Ok(None) };
        let failed = |request: &Value| {
            let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
            conditions.filter(|condition| condition["type"] == "Failed").cloned().collect::<Vec<_>>()
        };
        let signs = new["status"]["certificate"] != old["status"]["certificate"] || failed(new) != failed(old);
        let signer = signer(attributes);
        if !signs || may(attributes, "sign", &signer).await {
            return Ok(None);
        }
        Err(attributes.forbid(format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Nobody becomes a master by a certificate that the cluster signs for API clients.
pub(crate) struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is(GROUP, PLURAL)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        let Some(request) =
            object.filter(|object| object["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client")
        else {
            return Ok(None);
        };
        let groups = certificate::request_organizations(request["spec"]["request"].as_str().unwrap_or_default());
        if groups.iter().any(|group| group == MASTERS) {
            return Err(attributes.forbid(format!(
                "use of kubernetes.io/kube-apiserver-client signer with {MASTERS} group is not allowed"
            )));
        }
        Ok(None)
    }
}
