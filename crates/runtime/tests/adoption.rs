//! The server is killed; the pods go on, and the next server knows them.

use navarch_runtime::cri;

use crate::support::{self, Lab, Options, connect, eventually, lab};

/// Kills the server, runs `meanwhile`, starts another one.
async fn restart(lab: &mut Lab, meanwhile: impl AsyncFnOnce(&Lab)) {
    let pid = std::fs::read_to_string(lab.dir.join("server.pid")).unwrap();
    support::kill_server(pid.parse().unwrap());
    meanwhile(lab).await;
    support::spawn_server(&lab.dir, &lab.cgroup);
    let channel = connect(&lab.dir).await;
    lab.runtime = cri::runtime_service_client::RuntimeServiceClient::new(channel.clone());
    lab.images = cri::image_service_client::ImageServiceClient::new(channel);
}

#[test]
fn containers_do_not_notice_a_killed_server() {
    lab(Options { own_process: true, ..Options::default() }, |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("adopt");
        let sandbox = lab.run_sandbox(&config).await;
        let lasting =
            lab.run(&sandbox, lab.shell("lasting", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done")).await;
        let ending =
            lab.run(&sandbox, lab.shell("ending", "while [ ! -e /dev/shm/end ]; do sleep 0.02; done; exit 5")).await;
        let waiting = lab.create(&sandbox, lab.shell("waiting", "exit 6")).await.unwrap();
        let before = lab.status(&lasting).await;
        lab.exec_sync(&lasting, "touch /dev/shm/end", 5).await.unwrap();
        restart(&mut lab, async |lab| {
            let lines = lab.output("adopt", "lasting").len();
            eventually("the log goes on without a server", async || match lab.output("adopt", "lasting").len() {
                now if now > lines + 10 => Ok(()),
                now => Err(format!("{now} lines")),
            })
            .await;
        })
        .await;

        let after = lab.status(&lasting).await;
        assert_eq!((after.state, after.started_at), (before.state, before.started_at));
        let numbers: Vec<usize> = lab
            .output("adopt", "lasting")
            .iter()
            .filter_map(|line| line.split(' ').next_back()?.parse().ok())
            .collect();
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line is missing");
        assert_eq!(lab.exited(&ending).await.exit_code, 5);
        lab.start(&waiting).await.unwrap();
        assert_eq!(lab.exited(&waiting).await.exit_code, 6);
        assert_eq!(lab.exec_sync(&lasting, "echo still", 5).await.unwrap().stdout, b"still\n");
        lab.remove_sandbox(&sandbox).await;
        assert_eq!(support::leftovers(&lab.dir, &lab.cgroup), Vec::<String>::new());
    });
}

#[test]
fn half_made_things_are_removed_and_a_dead_shim_is_noticed() {
    lab(Options { own_process: true, ..Options::default() }, |mut lab| async move {
        lab.import_busybox().await;
        let config = lab.sandbox_config("half");
        let sandbox = lab.run_sandbox(&config).await;
        let id = lab.run(&sandbox, lab.shell("c", "sleep 1000")).await;
        let other = lab.sandbox_config("other");
        let other = lab.run_sandbox(&other).await;
        restart(&mut lab, async |lab| {
            // As if the server had been killed before it was ready.
            std::fs::remove_file(lab.dir.join("root/sandboxes").join(&other).join("record.json")).unwrap();
            std::fs::create_dir(lab.dir.join("root/containers/abandoned")).unwrap();
        })
        .await;
        let list =
            lab.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
        assert_eq!(list.iter().map(|item| &item.id).collect::<Vec<_>>(), [&sandbox]);
        let left = support::leftovers(&lab.dir, &lab.cgroup);
        assert!(!left.iter().any(|path| path.contains(&other) || path.contains("abandoned")), "{left:?}");

        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: true };
        let status = lab.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        let shim = nix::unistd::Pid::from_raw(info["pid"].as_i64().unwrap() as i32);
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
        let status = lab.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
        eventually("the sandbox is not ready", async || {
            let state =
                lab.runtime.pod_sandbox_status(request.clone()).await.unwrap().into_inner().status.unwrap().state;
            if state == cri::PodSandboxState::SandboxNotready as i32 { Ok(()) } else { Err(format!("{state}")) }
        })
        .await;
        lab.remove_sandbox(&sandbox).await;
        assert_eq!(support::leftovers(&lab.dir, &lab.cgroup), Vec::<String>::new());
    });
}

/// Wherever the server is killed, the next one has nothing half-done: what it lists works or can be removed, and then
/// nothing is left.
#[test]
fn a_server_killed_at_any_moment_leaves_nothing_behind() {
    lab(Options { own_process: true, ..Options::default() }, |mut lab| async move {
        lab.import_busybox().await;
        for round in 0..12_u64 {
            let begun: Vec<_> = (0..4)
                .map(|n| {
                    let (mut client, config) = (lab.runtime.clone(), lab.sandbox_config(&format!("r{round}-{n}")));
                    let container = lab.shell("c", "sleep 1000");
                    tokio::spawn(async move {
                        let request =
                            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
                        let pod_sandbox_id = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
                        let config = Some(container);
                        let request = cri::CreateContainerRequest { pod_sandbox_id, config, sandbox_config: None };
                        let container_id = client.create_container(request).await?.into_inner().container_id;
                        client.start_container(cri::StartContainerRequest { container_id }).await.map(drop)
                    })
                })
                .collect();
            tokio::time::sleep(std::time::Duration::from_millis(round * 8)).await;
            restart(&mut lab, async |_| ()).await;
            for task in begun {
                let _: Result<(), tonic::Status> = task.await.unwrap();
            }
            let list = lab.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await.unwrap().into_inner();
            for sandbox in list.items {
                lab.remove_sandbox(&sandbox.id).await;
            }
            assert_eq!(support::leftovers(&lab.dir, &lab.cgroup), Vec::<String>::new(), "round {round}");
            let own = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
            eventually("no shim is left", async || {
                let shims = support::processes("navarch-shim", &own);
                if shims <= 1 { Ok(()) } else { Err(format!("{shims} processes, one is the zygote")) }
            })
            .await;
        }
    });
}
