//! The runtime through its CRI socket, with real containers.

mod adoption;
mod registry;
mod streams;
mod support;

use navarch_runtime::cri;
use support::{Options, eventually, lab};

#[test]
fn serve_here() {
    support::serve_if_asked();
}

#[test]
fn a_pod_runs_logs_and_leaves_nothing() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("web");
        let sandbox = lab.run_sandbox(&config).await;
        let script = "hostname; cat /etc/resolv.conf; echo $FROM; echo oops >&2; printf partial; exit 3";
        let id = lab.run(&sandbox, lab.shell("c", script)).await;
        let status = lab.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"), "{status:?}");
        assert!(status.started_at > 0 && status.finished_at >= status.started_at);
        let mut output = lab.output("web", "c");
        output.sort();
        assert_eq!(
            output,
            [
                "stderr F oops",
                "stdout F image",
                "stdout F nameserver 10.0.0.10",
                "stdout F partial",
                "stdout F search local",
                "stdout F web",
            ]
        );
        lab.remove_sandbox(&sandbox).await;
        let list = lab.runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap().into_inner();
        assert_eq!(list.containers, []);
        assert_eq!(support::leftovers(&lab.dir, &lab.cgroup), Vec::<String>::new());
    });
}

fn security(config: cri::ContainerConfig, security: cri::LinuxContainerSecurityContext) -> cri::ContainerConfig {
    let linux = cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    cri::ContainerConfig { linux: Some(linux), ..config }
}

/// What kubelets ask for: a PID namespace for each container, the usual masks.
fn usual() -> cri::LinuxContainerSecurityContext {
    let namespaces = cri::NamespaceOption { pid: cri::NamespaceMode::Container as i32, ..Default::default() };
    cri::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces),
        masked_paths: vec!["/proc/kcore".into(), "/proc/timer_list".into(), "/sys/firmware".into()],
        readonly_paths: vec!["/proc/sys".into(), "/proc/bus".into()],
        ..Default::default()
    }
}

#[test]
fn security_contexts() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("sec");
        let sandbox = lab.run_sandbox(&config).await;
        let runtime_default = cri::SecurityProfile { profile_type: 0, localhost_ref: String::new() };
        let capabilities = |add: &[&str], drop: &[&str]| cri::Capability {
            add_capabilities: add.iter().map(|name| (*name).to_owned()).collect(),
            drop_capabilities: drop.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        let uid = |value| Some(cri::Int64Value { value });
        let cases = [
            ("pid", usual(), "echo $$", 0, "1"),
            (
                "user",
                cri::LinuxContainerSecurityContext { run_as_user: uid(33), ..usual() },
                "id",
                0,
                "uid=33(web) gid=34(web) groups=34(web),50(log)",
            ),
            (
                "named",
                cri::LinuxContainerSecurityContext {
                    run_as_username: "web".into(),
                    supplemental_groups: vec![77],
                    ..usual()
                },
                "id -G",
                0,
                "34 50 77",
            ),
            (
                "nocaps",
                cri::LinuxContainerSecurityContext { capabilities: Some(capabilities(&[], &["ALL"])), ..usual() },
                "grep CapBnd /proc/self/status",
                0,
                "CapBnd:\t0000000000000000",
            ),
            (
                "somecaps",
                cri::LinuxContainerSecurityContext {
                    capabilities: Some(capabilities(&["NET_ADMIN"], &["ALL"])),
                    ..usual()
                },
                "grep CapEff /proc/self/status",
                0,
                "CapEff:\t0000000000001000",
            ),
            ("readonly", cri::LinuxContainerSecurityContext { readonly_rootfs: true, ..usual() }, "touch /x", 1, ""),
            ("masked", usual(), "cat /proc/timer_list | wc -c; echo 1 > /proc/sys/kernel/panic || echo no", 0, "0\nno"),
            (
                "nnp",
                cri::LinuxContainerSecurityContext {
                    no_new_privs: true,
                    seccomp: Some(runtime_default.clone()),
                    ..usual()
                },
                "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
                0,
                "NoNewPrivs:\t1\nSeccomp:\t2",
            ),
            (
                "seccomp",
                cri::LinuxContainerSecurityContext { seccomp: Some(runtime_default.clone()), ..usual() },
                "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; unshare -U true 2>/dev/null || echo no",
                0,
                "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\nno",
            ),
            (
                "seccompuser",
                cri::LinuxContainerSecurityContext { run_as_user: uid(33), seccomp: Some(runtime_default), ..usual() },
                "grep -E 'CapEff|CapPrm|Seccomp:' /proc/self/status",
                0,
                "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nSeccomp:\t2",
            ),
            (
                "privileged",
                cri::LinuxContainerSecurityContext { privileged: true, ..usual() },
                "mount -t tmpfs x /tmp && touch /sys/fs/cgroup 2>/dev/null; echo ok",
                0,
                "ok",
            ),
        ];
        for (name, context, script, code, expect) in cases {
            let config = security(lab.shell(name, script), context);
            let (got_code, output) = lab.try_script(&sandbox, config).await;
            let stdout: Vec<&str> = output.lines().filter(|line| !line.contains("Read-only")).collect();
            assert_eq!((got_code, stdout.join("\n").as_str()), (code, expect), "{name}");
        }
    });
}

#[test]
fn namespaces_mounts_and_sysctls() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let mut config = lab.sandbox_config("ns");
        let mut linux = config.linux.take().unwrap();
        linux.sysctls = [
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned()),
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
        ]
        .into();
        linux.security_context = Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(cri::NamespaceOption { pid: cri::NamespaceMode::Pod as i32, ..Default::default() }),
            ..Default::default()
        });
        config.linux = Some(linux);
        let sandbox = lab.run_sandbox(&config).await;
        let shared = cri::NamespaceOption { pid: cri::NamespaceMode::Pod as i32, ..Default::default() };
        let shared = cri::LinuxContainerSecurityContext { namespace_options: Some(shared), ..usual() };

        std::fs::write(lab.dir.join("data"), "from the host").unwrap();
        let mount = |container_path: &str, host_path: std::path::PathBuf, readonly| cri::Mount {
            container_path: container_path.to_owned(),
            host_path: host_path.display().to_string(),
            readonly,
            ..Default::default()
        };
        let server = security(
            lab.shell("a", "echo shared > /dev/shm/x; touch /data/made; while :; do sleep 1; done"),
            shared.clone(),
        );
        let server = cri::ContainerConfig { mounts: vec![mount("/data", lab.dir.join("volume"), false)], ..server };
        let a = lab.run(&sandbox, server).await;
        let written = lab.dir.join("volume/made");
        eventually("the container has written", async || {
            written.exists().then_some(()).ok_or_else(|| "no file".to_owned())
        })
        .await;

        let script = "cat /file; echo; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; cat /dev/shm/x; ps | grep -c 'while :'; touch /ro/x";
        let looker = security(lab.shell("b", script), shared);
        let recursive = cri::Mount { recursive_read_only: true, ..mount("/ro", lab.dir.join("volume"), true) };
        let looker =
            cri::ContainerConfig { mounts: vec![mount("/file", lab.dir.join("data"), true), recursive], ..looker };
        let (code, output) = lab.try_script(&sandbox, looker).await;
        assert_eq!(code, 1, "{output}");
        assert!(output.starts_with("from the host\n77\n1\nshared\n"), "{output}");
        let target =
            cri::NamespaceOption { pid: cri::NamespaceMode::Target as i32, target_id: a.clone(), ..Default::default() };
        let debugger = security(
            lab.shell("c", "ps | grep -c 'while :'"),
            cri::LinuxContainerSecurityContext { namespace_options: Some(target), ..usual() },
        );
        assert_eq!(lab.try_script(&sandbox, debugger).await.0, 0);
    });
}

#[test]
fn exec_sync_runs_times_out_and_reports() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("exec");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, security(lab.shell("c", "sleep 1000"), usual())).await;
        let done = lab.exec_sync(&id, "echo out; echo err >&2; exit 7", 10).await.unwrap();
        assert_eq!(
            (done.exit_code, done.stdout.as_slice(), done.stderr.as_slice()),
            (7, b"out\n".as_slice(), b"err\n".as_slice())
        );
        let many = lab.exec_sync(&id, "seq 100000", 10).await.unwrap();
        assert_eq!(many.stdout.len(), 588_895);
        let late = lab.exec_sync(&id, "sleep 100", 1).await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded, "{late}");
        let gone = eventually("the late process is killed", async || {
            let left = lab.exec_sync(&id, "ps | grep -c 'sleep 10[0]$'", 10).await.unwrap();
            if left.stdout == b"0\n" { Ok(()) } else { Err(String::from_utf8_lossy(&left.stdout).into_owned()) }
        });
        gone.await;
        let request = cri::ExecSyncRequest { container_id: id.clone(), cmd: vec!["nothing".into()], timeout: 5 };
        let missing = lab.runtime.exec_sync(request).await.unwrap_err();
        assert!(missing.message().contains("executable file not found in $PATH"), "{missing}");
        let killed = lab.exec_sync(&id, "kill -9 $$", 5).await.unwrap();
        assert_eq!(killed.exit_code, 137);
    });
}

#[test]
fn stopping_asks_first_and_kills_then() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("stop");
        let sandbox = lab.run_sandbox(&config).await;
        let polite = lab
            .run(
                &sandbox,
                security(lab.shell("polite", "trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done"), usual()),
            )
            .await;
        let deaf = lab
            .run(&sandbox, security(lab.shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done"), usual()))
            .await;
        for (name, id, grace, code) in [("polite", &polite, 30, 42), ("deaf", &deaf, 1, 137)] {
            eventually("the trap is set", async || match lab.log("stop", name) {
                log if log.contains("up") => Ok(()),
                log => Err(log),
            })
            .await;
            let begun = std::time::SystemTime::now();
            let request = cri::StopContainerRequest { container_id: id.clone(), timeout: grace };
            lab.runtime.stop_container(request.clone()).await.unwrap();
            assert_eq!(lab.status(id).await.exit_code, code, "{name}");
            assert!(begun.elapsed().unwrap().as_secs() < 10, "{name}");
            lab.runtime.stop_container(request).await.unwrap();
        }
        let unknown = cri::StopContainerRequest { container_id: "unknown".into(), timeout: 0 };
        lab.runtime.stop_container(unknown).await.unwrap();
    });
}

#[test]
fn what_cannot_start_says_why() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("bad");
        let sandbox = lab.run_sandbox(&config).await;
        let again = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        assert_eq!(lab.runtime.run_pod_sandbox(again).await.unwrap_err().code(), tonic::Code::AlreadyExists);
        let handler =
            cri::RunPodSandboxRequest { config: Some(lab.sandbox_config("x")), runtime_handler: "kata".into() };
        assert!(lab.runtime.run_pod_sandbox(handler).await.unwrap_err().message().contains("kata"));

        let command =
            |name: &str, command: &str| cri::ContainerConfig { command: vec![command.into()], ..lab.shell(name, "") };
        let image = cri::ContainerConfig {
            image: Some(cri::ImageSpec { image: "none".into(), ..Default::default() }),
            ..lab.shell("image", "")
        };
        let user = cri::LinuxContainerSecurityContext { run_as_username: "nobody".into(), ..usual() };
        let localhost = cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost as i32,
            localhost_ref: "p".into(),
        };
        let cases = [
            (command("missing", "nothing"), "executable file not found in $PATH"),
            (command("path", "/bin/nothing"), "stat /bin/nothing: no such file or directory"),
            (command("plain", "/etc/passwd"), "permission denied"),
            (image, "image \"none\" not found"),
            (security(lab.shell("user", ""), user), "not in the image's /etc/passwd"),
            (
                security(
                    lab.shell("profile", ""),
                    cri::LinuxContainerSecurityContext { seccomp: Some(localhost), ..usual() },
                ),
                "seccomp profile",
            ),
        ];
        for (config, expect) in cases {
            let name = config.metadata.clone().unwrap().name;
            let failure = match lab.create(&sandbox, config).await {
                Err(error) => error,
                Ok(id) => {
                    let error = lab.start(&id).await.unwrap_err();
                    let status = lab.status(&id).await;
                    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{name}");
                    assert!(status.message.contains(expect), "{name}: {status:?}");
                    error
                }
            };
            assert!(failure.message().contains(expect), "{name}: {failure}");
        }
        for bad in ["UPPER CASE", ""] {
            let spec = Some(cri::ImageSpec { image: bad.into(), ..Default::default() });
            let refused =
                lab.images.pull_image(cri::PullImageRequest { image: spec, ..Default::default() }).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        }
        let checkpoint =
            lab.runtime.checkpoint_container(cri::CheckpointContainerRequest::default()).await.unwrap_err();
        assert_eq!(checkpoint.code(), tonic::Code::Unimplemented);
    });
}

#[test]
fn limits_stats_and_the_oom_killer() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("oom");
        let sandbox = lab.run_sandbox(&config).await;
        let limited = |config: cri::ContainerConfig, bytes: i64| {
            let resources = cri::LinuxContainerResources {
                memory_limit_in_bytes: bytes,
                cpu_shares: 512,
                cpu_period: 100_000,
                cpu_quota: 50_000,
                ..Default::default()
            };
            let linux = cri::LinuxContainerConfig { resources: Some(resources), security_context: Some(usual()) };
            cri::ContainerConfig { linux: Some(linux), ..config }
        };
        let hungry = lab.run(&sandbox, limited(lab.shell("hungry", "tail /dev/zero"), 16 << 20)).await;
        let status = lab.exited(&hungry).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{status:?}");

        let idle = lab
            .run(
                &sandbox,
                limited(lab.shell("idle", "dd if=/dev/zero of=/file bs=1024 count=100; sleep 1000"), 64 << 20),
            )
            .await;
        let stats = eventually("the file is written", async || {
            let stats =
                lab.runtime.container_stats(cri::ContainerStatsRequest { container_id: idle.clone() }).await.unwrap();
            let stats = stats.into_inner().stats.unwrap();
            let written = stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes).map_or(0, |used| used.value);
            if written >= 100 * 1024 { Ok(stats) } else { Err(format!("{stats:?}")) }
        })
        .await;
        assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
        assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
        let update = cri::UpdateContainerResourcesRequest {
            container_id: idle.clone(),
            linux: Some(cri::LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() }),
            ..Default::default()
        };
        lab.runtime.update_container_resources(update).await.unwrap();
        let resources = lab.status(&idle).await.resources.unwrap().linux.unwrap();
        assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (32 << 20, 512));
        let pods = lab
            .runtime
            .list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .stats;
        assert!(pods[0].linux.as_ref().unwrap().process.as_ref().unwrap().process_count.unwrap().value >= 1);
        let disks = lab.images.image_fs_info(cri::ImageFsInfoRequest {}).await.unwrap().into_inner();
        assert!(disks.image_filesystems[0].used_bytes.unwrap().value > 1 << 20);
    });
}

#[test]
fn events_tell_a_containers_life() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let mut events = lab.runtime.get_container_events(cri::GetEventsRequest {}).await.unwrap().into_inner();
        let config = lab.sandbox_config("events");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, lab.shell("c", "exit 0")).await;
        lab.exited(&id).await;
        let request = cri::RemoveContainerRequest { container_id: id.clone() };
        lab.runtime.remove_container(request).await.unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&(id.clone(), cri::ContainerEventType::ContainerDeletedEvent)) {
            let event = events.message().await.unwrap().unwrap();
            assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, sandbox);
            seen.push((event.container_id.clone(), event.container_event_type()));
        }
        use cri::ContainerEventType::*;
        let expect = [
            (&sandbox, ContainerCreatedEvent),
            (&sandbox, ContainerStartedEvent),
            (&id, ContainerCreatedEvent),
            (&id, ContainerStartedEvent),
            (&id, ContainerStoppedEvent),
            (&id, ContainerDeletedEvent),
        ];
        assert_eq!(seen, expect.map(|(id, kind)| (id.clone(), kind)));
    });
}

#[test]
fn thirty_pods_at_once_and_the_size_of_a_shim() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let begun = std::time::SystemTime::now();
        let pods = (0..30).map(|n| {
            let (mut client, config) = (lab.runtime.clone(), lab.sandbox_config(&format!("pod{n}")));
            let container = security(lab.shell("c", "sleep 1000"), usual());
            async move {
                let begun = std::time::SystemTime::now();
                let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
                let sandbox = client.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
                let made = begun.elapsed().unwrap();
                let request = cri::CreateContainerRequest {
                    pod_sandbox_id: sandbox,
                    config: Some(container),
                    sandbox_config: None,
                };
                let container_id = client.create_container(request).await.unwrap().into_inner().container_id;
                client.start_container(cri::StartContainerRequest { container_id }).await.unwrap();
                (made, begun.elapsed().unwrap())
            }
        });
        let mut pods: Vec<_> = pods.collect();
        let (sandbox, one) = pods.pop().unwrap().await;
        eprintln!("one pod: sandbox {sandbox:?}, running {one:?}");
        futures::future::join_all(pods).await;
        eprintln!("30 pods: {:?}", begun.elapsed().unwrap());
        let list = cri::ListContainersRequest::default();
        assert_eq!(lab.runtime.list_containers(list).await.unwrap().into_inner().containers.len(), 30);
        let list = lab.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner();
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: list.items[0].id.clone(), verbose: true };
        let info = lab.runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", info["pid"])).unwrap();
        let pss = memory.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap().trim();
        eprintln!("a shim: {pss}");
        let kib: u64 = pss.trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 4096, "a shim takes {kib} KiB");
    });
}

#[test]
fn the_hosts_network_and_images_as_volumes() {
    lab(Options::default(), |mut lab| async move {
        lab.import_busybox().await;
        let mut config = lab.sandbox_config("host");
        let mode = cri::NamespaceMode::Node as i32;
        let node = cri::NamespaceOption { network: mode, pid: mode, ipc: mode, ..Default::default() };
        let mut linux = config.linux.take().unwrap();
        linux.security_context =
            Some(cri::LinuxSandboxSecurityContext { namespace_options: Some(node.clone()), ..Default::default() });
        config.linux = Some(linux);
        let sandbox = lab.run_sandbox(&config).await;
        let host = cri::LinuxContainerSecurityContext { namespace_options: Some(node), ..usual() };
        let own =
            |kind: &str| std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display().to_string();
        let expect = ["net", "pid", "ipc", "uts"].map(own).join("\n");
        let script = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done";
        assert_eq!(lab.try_script(&sandbox, security(lab.shell("c", script), host)).await, (0, expect));

        let volume = |path: &str, sub: &str| cri::Mount {
            container_path: path.to_owned(),
            image: Some(cri::ImageSpec { image: "busybox:test".to_owned(), ..Default::default() }),
            image_sub_path: sub.to_owned(),
            readonly: true,
            ..Default::default()
        };
        let script = "cat /image/etc/group | wc -l; cat /sub/group | wc -l; touch /image/x";
        let mounts = vec![volume("/image", ""), volume("/sub", "etc")];
        let looker = cri::ContainerConfig { mounts, ..security(lab.shell("v", script), usual()) };
        let (code, output) = lab.try_script(&sandbox, looker).await;
        assert!(code == 1 && output.starts_with("3\n3\n"), "{output}");
        let outside = cri::ContainerConfig { mounts: vec![volume("/x", "../..")], ..lab.shell("o", "") };
        assert_eq!(lab.create(&sandbox, outside).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    });
}
