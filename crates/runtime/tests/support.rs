//! A runtime in namespaces of its own: private mounts, an empty network, a cgroup that goes away afterwards.

pub(crate) mod image;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navarch_runtime::cri::image_service_client::ImageServiceClient;
use navarch_runtime::cri::runtime_service_client::RuntimeServiceClient;
use navarch_runtime::{Config, Network, NetworkRequest, Registries, Runtime, cri};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A network without interfaces: the loopback is enough for these tests.
struct Loopback;

#[async_trait::async_trait]
impl Network for Loopback {
    async fn setup(&self, netns: &Path, _: &NetworkRequest) -> anyhow::Result<Vec<IpAddr>> {
        anyhow::ensure!(netns.exists(), "{} is missing", netns.display());
        Ok(vec![[10, 1, 2, 3].into()])
    }

    async fn teardown(&self, _: &Path, _: &NetworkRequest) -> anyhow::Result<()> {
        Ok(())
    }
}

pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

/// How a lab differs from the usual one.
#[derive(Default, Clone)]
pub(crate) struct Options {
    pub(crate) registries: Registries,
    /// The server runs in a process of its own (see `serve_here`), whose id the test gets to kill.
    pub(crate) own_process: bool,
}

pub(crate) fn config(dir: &Path, cgroup: &str, registries: Registries) -> Config {
    Config {
        root: dir.join("root"),
        run_dir: dir.join("run"),
        cgroup_parent: cgroup.to_owned(),
        prefix: "nvtest".to_owned(),
        shim_command: vec![OsString::from(env!("CARGO_BIN_EXE_navarch-shim"))],
        registries,
        network: Arc::new(Loopback),
        streaming_socket: dir.join("stream.sock"),
        preload: None,
    }
}

/// Opens and serves in this process until killed.
pub(crate) async fn serve(dir: &Path, cgroup: &str, registries: Registries, cancel: CancellationToken) {
    let runtime = Runtime::open(config(dir, cgroup, registries)).await.unwrap();
    let socket = dir.join("cri.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    runtime.serve(listener, cancel).await.unwrap();
}

pub(crate) async fn connect(dir: &Path) -> Channel {
    let socket = dir.join("cri.sock");
    eventually("the runtime answers", async || {
        let path = socket.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://runtime");
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())?;
        let mut client = RuntimeServiceClient::new(channel.clone());
        client.version(cri::VersionRequest::default()).await.map_err(|error| error.to_string())?;
        Ok(channel)
    })
    .await
}

/// Waits for a level, at most 20 s, and says what it saw last.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) if tokio::time::Instant::now() > deadline => panic!("waiting until {what}: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Runs `test` in a lab; cleans up whatever happens.
pub(crate) fn lab<T>(options: Options, test: impl FnOnce(Lab) -> T)
where
    T: Future<Output = ()>,
{
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: containers need root");
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    image::loopback_up();
    let scratch = tempfile::Builder::new().prefix("nvrt-").tempdir_in("/tmp").unwrap();
    let dir = scratch.path().to_owned();
    let cgroup = format!("/nvrt-{}", std::process::id());
    // The threads are born into the namespaces of this one.
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cancel = CancellationToken::new();
    let failed = {
        let _guard = tokio.enter();
        if options.own_process {
            spawn_server(&dir, &cgroup);
        } else {
            let (dir, cgroup, cancel) = (dir.clone(), cgroup.clone(), cancel.clone());
            tokio.spawn(async move { serve(&dir, &cgroup, options.registries, cancel).await });
        }
        let channel = tokio.block_on(connect(&dir));
        let lab = Lab {
            dir: dir.clone(),
            cgroup: cgroup.clone(),
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio.block_on(test(lab)))).err()
    };
    cancel.cancel();
    if let Ok(pid) = std::fs::read_to_string(dir.join("server.pid")) {
        kill_server(pid.trim().parse().unwrap());
    }
    let swept = tokio.block_on(async {
        let runtime =
            Runtime::open(config(&dir, &cgroup, Registries::default())).await.map_err(|error| error.to_string())?;
        runtime.remove_all().await.map_err(|error| error.to_string())
    });
    drop(tokio);
    let left = leftovers(&dir, &cgroup);
    remove_cgroups(&cgroup);
    if let Some(failure) = failed {
        let shim_log = std::fs::read_to_string(dir.join("run/shim.log")).unwrap_or_default();
        eprintln!("shim log: {shim_log}");
        std::panic::resume_unwind(failure);
    }
    assert_eq!(swept, Ok(()));
    assert_eq!(left, Vec::<String>::new(), "left over");
}

/// What a removed pod must not leave: mounts, processes in cgroups, directories.
pub(crate) fn leftovers(dir: &Path, cgroup: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mut left: Vec<String> =
        mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned).collect();
    for sub in ["root/sandboxes", "root/containers", "run/netns", "run/s", "run/shm"] {
        let entries = std::fs::read_dir(dir.join(sub)).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    for path in cgroup_dirs(cgroup) {
        // The pods' own cgroups are the kubelet's; the containers' in them are not.
        let children =
            |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let inside = children(path).filter(|pod| pod.is_dir()).flat_map(children);
        left.extend(inside.filter(|path| path.is_dir()).map(|path| path.display().to_string()));
    }
    left
}

fn cgroup_dirs(cgroup: &str) -> Vec<PathBuf> {
    let controllers = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let below = controllers.map(|entry| entry.path().join(cgroup.trim_start_matches('/')));
    below
        .chain([Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'))])
        .filter(|path| path.is_dir())
        .collect()
}

fn remove_cgroups(cgroup: &str) {
    fn remove(path: &Path) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            remove(&entry.path());
        }
        let _ = std::fs::remove_dir(path);
    }
    for path in cgroup_dirs(cgroup) {
        remove(&path);
    }
}

/// Starts this test program again, as the server.
#[expect(clippy::zombie_processes, reason = "kill_server waits for it")]
pub(crate) fn spawn_server(dir: &Path, cgroup: &str) {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve_here", "--nocapture"])
        .env("NVRT_SERVE", format!("{}\n{cgroup}", dir.display()))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(dir.join("server.log")).unwrap())
        .spawn()
        .unwrap();
    std::fs::write(dir.join("server.pid"), child.id().to_string()).unwrap();
}

pub(crate) fn kill_server(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    let _ = nix::sys::wait::waitpid(pid, None);
}

/// The other half of [`spawn_server`]; nothing in an ordinary run.
pub(crate) fn serve_if_asked() {
    let Ok(asked) = std::env::var("NVRT_SERVE") else { return };
    let (dir, cgroup) = asked.split_once('\n').unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(serve(Path::new(dir), cgroup, Registries::default(), CancellationToken::new()));
}

impl Lab {
    /// The busybox image, imported as `busybox:test`.
    pub(crate) async fn import_busybox(&self) {
        let archive = self.dir.join("busybox.tar");
        image::docker_archive(&archive, "busybox:test");
        let dir = self.dir.join("root");
        let imported = tokio::task::spawn_blocking(move || {
            let images = navarch_runtime::images::Images::open(&dir, Registries::default())?;
            images.import(&archive)
        });
        imported.await.unwrap().unwrap();
    }

    pub(crate) fn sandbox_config(&self, name: &str) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                namespace: "default".to_owned(),
                uid: format!("uid-{name}"),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: self.dir.join("logs").join(name).display().to_string(),
            dns_config: Some(cri::DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["local".into()],
                options: vec![],
            }),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(crate) async fn run_sandbox(&mut self, config: &cri::PodSandboxConfig) -> String {
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    /// A container that runs `script` in a shell.
    pub(crate) fn shell(&self, name: &str, script: &str) -> cri::ContainerConfig {
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: "busybox:test".to_owned(), ..Default::default() }),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}.log"),
            ..Default::default()
        }
    }

    pub(crate) async fn create(
        &mut self,
        sandbox: &str,
        config: cri::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.runtime.create_container(request).await?.into_inner().container_id)
    }

    pub(crate) async fn start(&mut self, container: &str) -> Result<(), tonic::Status> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.runtime.start_container(request).await.map(drop)
    }

    pub(crate) async fn run(&mut self, sandbox: &str, config: cri::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    pub(crate) async fn status(&mut self, container: &str) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// The status once the container has exited.
    pub(crate) async fn exited(&mut self, container: &str) -> cri::ContainerStatus {
        let mut client = self.runtime.clone();
        let id = container.to_owned();
        eventually("the container has exited", async || {
            let request = cri::ContainerStatusRequest { container_id: id.clone(), verbose: false };
            let status = client.container_status(request).await.unwrap().into_inner().status.unwrap();
            if status.state == cri::ContainerState::ContainerExited as i32 {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    pub(crate) fn log(&self, sandbox: &str, container: &str) -> String {
        std::fs::read_to_string(self.dir.join("logs").join(sandbox).join(format!("{container}.log")))
            .unwrap_or_default()
    }

    /// The log's content without times.
    pub(crate) fn output(&self, sandbox: &str, container: &str) -> Vec<String> {
        self.log(sandbox, container).lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
    }

    /// Runs `script` in a fresh container to its end: exit code and what it printed.
    pub(crate) async fn try_script(&mut self, sandbox: &str, config: cri::ContainerConfig) -> (i32, String) {
        let name = config.metadata.clone().unwrap().name;
        let status = self
            .runtime
            .pod_sandbox_status(cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose: false });
        let pod = status.await.unwrap().into_inner().status.unwrap().metadata.unwrap().name;
        let id = self.run(sandbox, config).await;
        let status = self.exited(&id).await;
        let lines: Vec<String> = self
            .output(&pod, &name)
            .into_iter()
            .map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned())
            .collect();
        (status.exit_code, lines.join("\n"))
    }

    pub(crate) async fn exec_sync(
        &mut self,
        container: &str,
        script: &str,
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse, tonic::Status> {
        let cmd = vec!["sh".into(), "-c".into(), script.into()];
        let request = cri::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    pub(crate) async fn remove_sandbox(&mut self, sandbox: &str) {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.runtime.stop_pod_sandbox(request).await.unwrap();
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.runtime.remove_pod_sandbox(request).await.unwrap();
    }
}

/// How many processes of this name live in the mount namespace `own`.
pub(crate) fn processes(name: &str, own: &Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
            && std::fs::read_link(path.join("ns/mnt")).is_ok_and(|namespace| namespace == own)
    })
    .count()
}
