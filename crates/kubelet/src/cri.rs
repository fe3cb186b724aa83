//! The only way to a runtime: CRI v1, gRPC over a unix socket.
//!
//! Wraps the generated clients so that callers see plain arguments and one error type that names the call. Nothing is
//! cached here and nothing is retried: the pod worker decides both.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

/// Messages, clients and servers generated from `cri.proto`.
#[allow(clippy::all, dead_code, missing_docs, unreachable_pub, reason = "generated")]
pub(crate) mod v1 {
    tonic::include_proto!("runtime.v1");
}

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// A CRI call that failed; the source carries the runtime's own words.
#[derive(Debug, thiserror::Error)]
#[error("the container runtime failed {call}")]
pub(crate) struct Error {
    pub(crate) call: &'static str,
    #[source]
    pub(crate) status: Box<tonic::Status>,
}

impl Error {
    /// What the runtime said, as events and statuses show it.
    pub(crate) fn message(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.status.code(), self.status.message())
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status.code() == tonic::Code::NotFound
    }

    pub(crate) fn is_unimplemented(&self) -> bool {
        self.status.code() == tonic::Code::Unimplemented
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Handles to both CRI services. Cheap to clone: clones share one HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// Largest answer accepted: lists of many containers with long annotations pass gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// Limits `cri`'s one call; the answer keeps only what the caller needs.
macro_rules! call {
    ($client:expr, $method:ident, $request:expr) => {
        $client
            .clone()
            .$method($request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| Error { call: stringify!($method), status: Box::new(status) })
    };
}

impl Runtime {
    /// Connects on first use and again after the runtime restarts.
    pub(crate) fn connect(socket: &Path) -> Self {
        let path: PathBuf = socket.to_owned();
        // The URI is never resolved: the connector dials the socket.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            },
        ));
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        }
    }

    pub(crate) async fn version(&self) -> Result<v1::VersionResponse> {
        call!(self.runtime, version, v1::VersionRequest { version: "0.1.0".into() })
    }

    pub(crate) async fn status(&self) -> Result<v1::StatusResponse> {
        call!(self.runtime, status, v1::StatusRequest { verbose: false })
    }

    pub(crate) async fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: cidr.to_owned() });
        let runtime_config = Some(v1::RuntimeConfig { network_config });
        call!(self.runtime, update_runtime_config, v1::UpdateRuntimeConfigRequest { runtime_config }).map(drop)
    }

    pub(crate) async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        call!(self.runtime, run_pod_sandbox, request).map(|answer| answer.pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        call!(self.runtime, stop_pod_sandbox, v1::StopPodSandboxRequest { pod_sandbox_id: id.into() }).map(drop)
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        call!(self.runtime, remove_pod_sandbox, v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() }).map(drop)
    }

    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        call!(self.runtime, pod_sandbox_status, request).map(|answer| answer.status.unwrap_or_default())
    }

    /// Sandboxes whose labels include `labels`; all of them when it is empty.
    pub(crate) async fn sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<v1::PodSandbox>> {
        let filter = Some(v1::PodSandboxFilter { label_selector: labels, ..Default::default() });
        call!(self.runtime, list_pod_sandbox, v1::ListPodSandboxRequest { filter }).map(|answer| answer.items)
    }

    /// Containers whose labels include `labels`; all of them when it is empty.
    pub(crate) async fn containers(&self, labels: HashMap<String, String>) -> Result<Vec<v1::Container>> {
        let filter = Some(v1::ContainerFilter { label_selector: labels, ..Default::default() });
        call!(self.runtime, list_containers, v1::ListContainersRequest { filter }).map(|answer| answer.containers)
    }

    pub(crate) async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        call!(self.runtime, container_status, request).map(|answer| answer.status.unwrap_or_default())
    }

    pub(crate) async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        call!(self.runtime, create_container, request).map(|answer| answer.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        call!(self.runtime, start_container, v1::StartContainerRequest { container_id: id.into() }).map(drop)
    }

    /// Returns when the container has exited; the runtime kills it after `grace`.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        call!(self.runtime, stop_container, v1::StopContainerRequest { container_id: id.into(), timeout }).map(drop)
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        call!(self.runtime, remove_container, v1::RemoveContainerRequest { container_id: id.into() }).map(drop)
    }

    pub(crate) async fn update_container(&self, id: &str, linux: v1::LinuxContainerResources) -> Result<()> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        call!(self.runtime, update_container_resources, request).map(drop)
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        call!(self.runtime, reopen_container_log, v1::ReopenContainerLogRequest { container_id: id.into() }).map(drop)
    }

    /// Runs `command` to its end. A `timeout` of zero means none.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse> {
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.into(), cmd: command.to_vec(), timeout: seconds };
        call!(self.runtime, exec_sync, request)
    }

    pub(crate) async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        call!(self.runtime, exec, request).map(|answer| answer.url)
    }

    pub(crate) async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        call!(self.runtime, attach, request).map(|answer| answer.url)
    }

    pub(crate) async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = v1::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        call!(self.runtime, port_forward, request).map(|answer| answer.url)
    }

    /// Containers' life as it happens. Runtimes without it answer `Unimplemented`.
    pub(crate) async fn events(&self) -> Result<tonic::Streaming<v1::ContainerEventResponse>> {
        call!(self.runtime, get_container_events, v1::GetEventsRequest {})
    }

    pub(crate) async fn container_stats(&self) -> Result<Vec<v1::ContainerStats>> {
        call!(self.runtime, list_container_stats, v1::ListContainerStatsRequest { filter: None })
            .map(|answer| answer.stats)
    }

    pub(crate) async fn sandbox_stats(&self) -> Result<Vec<v1::PodSandboxStats>> {
        call!(self.runtime, list_pod_sandbox_stats, v1::ListPodSandboxStatsRequest { filter: None })
            .map(|answer| answer.stats)
    }

    pub(crate) async fn images(&self) -> Result<Vec<v1::Image>> {
        call!(self.images, list_images, v1::ListImagesRequest { filter: None }).map(|answer| answer.images)
    }

    pub(crate) async fn image_status(&self, image: &str) -> Result<Option<v1::Image>> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        call!(self.images, image_status, request).map(|answer| answer.image)
    }

    pub(crate) async fn pull_image(&self, image: &str, auth: Option<v1::AuthConfig>) -> Result<String> {
        let request = v1::PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: None };
        call!(self.images, pull_image, request).map(|answer| answer.image_ref)
    }

    pub(crate) async fn remove_image(&self, image: &str) -> Result<()> {
        call!(self.images, remove_image, v1::RemoveImageRequest { image: Some(image_spec(image)) }).map(drop)
    }

    pub(crate) async fn image_filesystems(&self) -> Result<v1::ImageFsInfoResponse> {
        call!(self.images, image_fs_info, v1::ImageFsInfoRequest {})
    }
}

pub(crate) fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}
