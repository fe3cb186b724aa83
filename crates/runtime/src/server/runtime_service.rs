//! The calls about sandboxes and containers.

use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::image_service::batches;
use super::{Service, convert, events, stats};
use crate::cri;
use crate::cri::runtime_service_server::RuntimeService;
use crate::runtime::Runtime;
use crate::streams::Ticket;

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = ReceiverStream<Result<T, Status>>;

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0) as u64)
}

/// What walks files, off the threads that serve calls.
async fn blocking<T: Send + 'static>(
    runtime: &Runtime,
    work: impl FnOnce(&Runtime) -> T + Send + 'static,
) -> Result<T, Status> {
    let runtime = runtime.clone();
    let done = tokio::task::spawn_blocking(move || work(&runtime)).await;
    done.map_err(|error| Status::internal(error.to_string()))
}

impl Service {
    fn ticket(&self, ticket: Ticket) -> Result<String, Status> {
        Ok(self.runtime.inner.tokens.issue(&self.runtime.inner.config.streaming_socket, ticket)?)
    }

    fn running(&self, id: &str) -> Result<std::sync::Arc<crate::container::Container>, Status> {
        let container = self.runtime.container(id)?;
        if !container.is_running() {
            return Err(Status::failed_precondition(format!("container {} is not running", container.id)));
        }
        Ok(container)
    }
}

/// Streams that can be asked for.
fn check_streams(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<streaming::exec::Streams, Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(streaming::exec::Streams { stdin, stdout, stderr, tty })
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type GetContainerEventsStream = Streamed<cri::ContainerEventResponse>;
    type StreamContainerStatsStream = Streamed<cri::StreamContainerStatsResponse>;
    type StreamContainersStream = Streamed<cri::StreamContainersResponse>;
    type StreamPodSandboxMetricsStream = Streamed<cri::StreamPodSandboxMetricsResponse>;
    type StreamPodSandboxStatsStream = Streamed<cri::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxesStream = Streamed<cri::StreamPodSandboxesResponse>;

    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(cri::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "navarch".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let network = self.runtime.inner.config.network.ready().await;
        let condition = |name: &str, state: Result<(), String>| cri::RuntimeCondition {
            r#type: name.to_owned(),
            status: state.is_ok(),
            reason: if state.is_ok() { "" } else { "NetworkPluginNotReady" }.to_owned(),
            message: state.err().unwrap_or_default(),
        };
        let conditions = vec![condition("RuntimeReady", Ok(())), condition("NetworkReady", network)];
        let features = cri::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        let handlers = ["", "runc"].map(|name| cri::RuntimeHandler { name: name.to_owned(), features: Some(features) });
        let mut info = std::collections::HashMap::new();
        if request.into_inner().verbose {
            let config = &self.runtime.inner.config;
            let text = serde_json::json!({
                "root": config.root, "runDir": config.run_dir, "cgroupV2": self.runtime.inner.cgroups.is_v2(),
                "sandboxes": self.runtime.inner.sandboxes.read().len(),
                "containers": self.runtime.inner.containers.read().len(),
            });
            info.insert("config".to_owned(), text.to_string());
        }
        Ok(Response::new(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
            runtime_handlers: handlers.to_vec(),
            features: Some(cri::RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        }))
    }

    async fn runtime_config(&self, _: Request<cri::RuntimeConfigRequest>) -> Answer<cri::RuntimeConfigResponse> {
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: cri::CgroupDriver::Cgroupfs as i32 };
        Ok(Response::new(cri::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.unwrap_or_default().network_config.unwrap_or_default();
        if !network.pod_cidr.is_empty() {
            self.runtime.inner.config.network.set_pod_cidr(&network.pod_cidr).await;
        }
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<cri::RunPodSandboxRequest>) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        let runtime = self.runtime.clone();
        // In a task of its own: a caller that gives up must not leave half of it.
        let made = tokio::spawn(async move {
            runtime.run_sandbox(request.config.unwrap_or_default(), &request.runtime_handler).await
        });
        let pod_sandbox_id = made.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let runtime = self.runtime.clone();
        let stopped = tokio::spawn(async move { runtime.stop_sandbox(&request.into_inner().pod_sandbox_id).await });
        stopped.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let runtime = self.runtime.clone();
        let removed = tokio::spawn(async move { runtime.remove_sandbox(&request.into_inner().pod_sandbox_id).await });
        removed.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.runtime.sandbox(&request.pod_sandbox_id)?;
        let containers = self.runtime.containers_of(&sandbox.id);
        Ok(Response::new(cri::PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(&sandbox)),
            info: if request.verbose { convert::sandbox_info(&sandbox) } else { Default::default() },
            containers_statuses: containers.iter().map(|container| convert::container_status(container)).collect(),
            timestamp: crate::runtime::now(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let items = convert::sandboxes(&self.runtime, request.into_inner().filter);
        Ok(Response::new(cri::ListPodSandboxResponse { items }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let all = convert::sandboxes(&self.runtime, request.into_inner().filter);
        Ok(Response::new(batches(all, |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let container_id =
            self.runtime.create_container(&request.pod_sandbox_id, request.config.unwrap_or_default()).await?;
        Ok(Response::new(cri::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let runtime = self.runtime.clone();
        let started = tokio::spawn(async move { runtime.start_container(&request.into_inner().container_id).await });
        started.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<cri::StopContainerRequest>) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        self.runtime.stop_container(&request.container_id, seconds(request.timeout)).await?;
        Ok(Response::new(cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let runtime = self.runtime.clone();
        let removed = tokio::spawn(async move { runtime.remove_container(&request.into_inner().container_id).await });
        removed.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let containers = convert::containers(&self.runtime, request.into_inner().filter);
        Ok(Response::new(cri::ListContainersResponse { containers }))
    }

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let all = convert::containers(&self.runtime, request.into_inner().filter);
        Ok(Response::new(batches(all, |containers| cri::StreamContainersResponse { containers })))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.runtime.container(&request.container_id)?;
        Ok(Response::new(cri::ContainerStatusResponse {
            status: Some(convert::container_status(&container)),
            info: if request.verbose { convert::container_info(&container) } else { Default::default() },
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.runtime.update_resources(&request.container_id, request.linux.unwrap_or_default())?;
        Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        // The pod's cgroup is the kubelet's; there is nothing to keep in step here.
        self.runtime.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(cri::UpdatePodSandboxResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        self.runtime.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        let timeout = seconds(request.timeout);
        let (exit_code, stdout, stderr) = self.runtime.exec_sync(&request.container_id, &request.cmd, timeout).await?;
        Ok(Response::new(cri::ExecSyncResponse { stdout, stderr, exit_code }))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let request = request.into_inner();
        let streams = check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
        let container = self.running(&request.container_id)?.id.clone();
        let url = self.ticket(Ticket::Exec { container, command: request.cmd, streams })?;
        Ok(Response::new(cri::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let request = request.into_inner();
        let streams = check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
        let container = self.running(&request.container_id)?.id.clone();
        let url = self.ticket(Ticket::Attach { container, streams })?;
        Ok(Response::new(cri::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<cri::PortForwardRequest>) -> Answer<cri::PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.runtime.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Status::failed_precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let ports = request.port.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
        let url = self.ticket(Ticket::PortForward { sandbox: sandbox.id.clone(), ports })?;
        Ok(Response::new(cri::PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let container = self.runtime.container(&request.into_inner().container_id)?;
        let stats = blocking(&self.runtime, move |runtime| stats::container(runtime, &container)).await?;
        Ok(Response::new(cri::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = request.into_inner().filter;
        let stats = blocking(&self.runtime, move |runtime| stats::containers(runtime, filter)).await?;
        Ok(Response::new(cri::ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let filter = request.into_inner().filter;
        let all = blocking(&self.runtime, move |runtime| stats::containers(runtime, filter)).await?;
        Ok(Response::new(batches(all, |container_stats| cri::StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let sandbox = self.runtime.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = blocking(&self.runtime, move |runtime| stats::sandbox(runtime, &sandbox)).await?;
        Ok(Response::new(cri::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter;
        let stats = blocking(&self.runtime, move |runtime| stats::sandboxes(runtime, filter)).await?;
        Ok(Response::new(cri::ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let filter = request.into_inner().filter;
        let all = blocking(&self.runtime, move |runtime| stats::sandboxes(runtime, filter)).await?;
        Ok(Response::new(batches(all, |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        Ok(Response::new(cri::ListMetricDescriptorsResponse { descriptors: Vec::new() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        Ok(Response::new(cri::ListPodSandboxMetricsResponse { pod_metrics: Vec::new() }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        Ok(Response::new(batches(Vec::new(), |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        })))
    }

    async fn get_container_events(&self, _: Request<cri::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        Ok(Response::new(ReceiverStream::new(events::stream(&self.runtime, self.cancel.clone()))))
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(Status::unimplemented("this runtime does not checkpoint containers"))
    }
}
