//! The gRPC health protocol (`grpc.health.v1.Health/Check`).

use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::action::Outcome;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 0 unknown, 1 serving, 2 not serving, 3 service unknown.
    #[prost(int32, tag = "1")]
    status: i32,
}

const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, ask(&authority, service)).await {
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service \"{authority}\" within {}s",
            timeout.as_secs()
        )),
        Ok(Err(Failure::Connect(text))) => {
            Outcome::Failure(format!("error: failed to connect service at \"{authority}\": {text}"))
        }
        Ok(Err(Failure::Status(status))) if status.code() == tonic::Code::Unimplemented => Outcome::Failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned(),
        ),
        Ok(Err(Failure::Status(status))) => Outcome::Failure(format!("error: health rpc probe failed: {status}")),
        Ok(Ok(1)) => Outcome::Success,
        Ok(Ok(status)) => {
            let name = usize::try_from(status).ok().and_then(|index| NAMES.get(index)).unwrap_or(&"UNKNOWN");
            Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
    }
}

enum Failure {
    Connect(String),
    Status(Box<tonic::Status>),
}

async fn ask(authority: &str, service: &str) -> Result<i32, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"));
    let endpoint = endpoint.map_err(|error| Failure::Connect(error.to_string()))?.user_agent("kube-probe/1.36");
    let endpoint = endpoint.map_err(|error| Failure::Connect(error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|error| Failure::Connect(error.to_string()))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Failure::Connect(error.to_string()))?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let answer = client.unary(request, path, codec).await;
    answer.map(|answer| answer.into_inner().status).map_err(|status| Failure::Status(Box::new(status)))
}
