//! The runtime through its CRI socket, with real containers.

mod support;

use std::time::Duration;

use navarch_runtime::cri;
use support::{Lab, Options, eventually, lab};

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
        assert_eq!(support::leftovers(&lab.dir, &lab.cgroup).iter().filter(|left| !left.ends_with("/web")).count(), 0);
    });
}
