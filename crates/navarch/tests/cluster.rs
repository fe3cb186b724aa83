//! The real binary with real containers, driven by stock kubectl.

use std::{collections::BTreeSet, fs, time::Duration};

use nix::sys::signal::Signal;
use testkit::{host::Host, server::Server, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_navarch");
const WEB: &str = include_str!("../../../examples/web.yaml");
const WORKLOADS: &str = include_str!("../../../examples/workloads.yaml");
const SOON: Duration = Duration::from_secs(60);

fn client_pod(server: &Server) {
    server.kubectl(&["run", "client", "--image=busybox", "--image-pull-policy=IfNotPresent", "--", "sleep", "100000"]);
    server.kubectl(&["wait", "pod/client", "--for=condition=Ready", "--timeout=60s"]);
}

fn in_client(server: &Server, line: &str) -> String {
    server.kubectl(&["exec", "client", "--", "sh", "-c", line])
}

/// Names of the pods that answer `url`, asked often enough to see three.
fn answering(ask: impl Fn() -> String) -> BTreeSet<String> {
    (0..24).map(|_| ask().trim().to_string()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_web_application_is_deployed_reached_changed_and_deleted() {
    if !Host::available() {
        return;
    }
    let server = Server::start(BINARY, &[]);
    assert!(server.kubectl(&["version"]).contains("v1.36.2+navarch"));
    assert!(server.kubectl(&["get", "nodes", "-o", "wide"]).contains("10.91.0.1"));
    assert!(server.kubectl(&["api-resources"]).contains("deployments"));
    assert!(server.kubectl(&["explain", "deployment.spec"]).contains("DeploymentSpec"));
    assert!(server.kubectl(&["auth", "can-i", "--list"]).contains("*.*"));
    client_pod(&server);

    server.apply(WEB);
    server.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let all = server.kubectl(&["-n", "shop", "get", "all", "-o", "wide"]);
    assert_eq!(all.matches("1/1     Running").count(), 3, "{all}");
    let pod = server.kubectl(&["-n", "shop", "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    assert!(server.kubectl(&["-n", "shop", "describe", "pod", &pod]).contains("Successfully assigned"));
    let environment = server.kubectl(&["-n", "shop", "exec", &pod, "--", "env"]);
    for line in ["GREETING=hello", "PASSWORD=correct horse", "PAGE_greeting=hello", &format!("POD_NAME={pod}")] {
        assert!(environment.contains(line), "{line} in {environment}");
    }

    // The Service from a pod, by its names; from the host by its node port.
    let fetch = "curl -s -m 5 http://web.shop.svc.cluster.local/name";
    wait::until("all three pods to answer", SOON, || {
        let seen = answering(|| in_client(&server, fetch));
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert!(in_client(&server, "curl -s -m 5 http://web.shop/").contains("served by navarch"));
    assert!(server.host.sh("curl -s -m 5 http://10.91.0.1:30080/").contains("served by navarch"));
    assert!(server.host.sh("curl -s -m 5 http://127.0.0.1:30080/").contains("served by navarch"));

    // The API from a pod, with its token: known, but not allowed.
    let token = "--cacert $D/ca.crt -H \"Authorization: Bearer $(cat $D/token)\"";
    let ask = |path: &str| {
        in_client(
            &server,
            &format!(
                "D=/var/run/secrets/kubernetes.io/serviceaccount; curl -s -m 5 {token} https://kubernetes.default{path}"
            ),
        )
    };
    assert!(ask("/api/v1/namespaces/default/pods").contains("system:serviceaccount:default:default"));
    server.kubectl(&["create", "clusterrolebinding", "v", "--clusterrole=view", "--serviceaccount=default:default"]);
    wait::until("the new right", SOON, || {
        let answer = ask("/api/v1/namespaces/default/pods");
        if answer.contains("PodList") { Ok(()) } else { Err(answer) }
    });

    // Streams.
    let failed = server.try_kubectl(&["exec", "client", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], None);
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&failed.stdout), "out\n");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("err"));
    assert!(server.kubectl(&["-n", "shop", "logs", &pod, "-c", "httpd"]).contains("response:200"));
    server.kubectl(&["cp", "/etc/hostname", "default/client:/tmp/name"]);
    assert_eq!(in_client(&server, "cat /tmp/name"), fs::read_to_string("/etc/hostname").unwrap());
    let mut forward = server.spawn_kubectl(&["-n", "shop", "port-forward", "deployment/web", "18080:8080"]);
    wait::until("the forwarded port", SOON, || {
        let answer = server.host.command("curl").args(["-s", "-m", "5", "http://127.0.0.1:18080/"]).output().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        if text.contains("served by navarch") { Ok(()) } else { Err(text) }
    });
    forward.kill().unwrap();
    forward.wait().unwrap();

    // Changes.
    server.kubectl(&["-n", "shop", "scale", "deployment/web", "--replicas=2"]);
    server.kubectl(&["-n", "shop", "set", "image", "deployment/web", "httpd=busybox:latest"]);
    server.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s"]);
    server.kubectl(&["-n", "shop", "rollout", "undo", "deployment/web"]);
    server.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s"]);
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(server.kubectl(&["-n", "shop", "get", "deployment/web", "-o", image]), "busybox");
    server.kubectl(&[
        "-n",
        "shop",
        "patch",
        "deployment/web",
        "--type=json",
        "-p",
        r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
    ]);
    server.kubectl(&[
        "-n",
        "shop",
        "patch",
        "deployment/web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"c":"d"}}}"#,
    ]);
    server.kubectl(&["-n", "shop", "patch", "deployment/web", "-p", r#"{"metadata":{"labels":{"e":"f"}}}"#]);
    server.kubectl(&["-n", "shop", "label", "deployment/web", "g=h"]);
    server.kubectl(&["-n", "shop", "annotate", "deployment/web", "g=h"]);
    let labels = server.get(&["-n", "shop", "deployment/web"])["metadata"]["labels"].clone();
    assert_eq!(labels, serde_json::json!({"a": "b", "c": "d", "e": "f", "g": "h"}));

    // A deleted namespace takes everything along, on the machine too.
    server.kubectl(&["delete", "namespace", "shop", "--timeout=90s"]);
    assert_eq!(server.get(&["pods", "-A"])["items"].as_array().unwrap().len(), 1, "only the client is left");
    wait::until("the machine to be clean", SOON, || {
        let links = server.host.sh("ip -o link | grep -c ': nv[0-9a-f]*@' || true");
        let rules = server.host.sh("nft list ruleset | grep -c 30080 || true");
        if links.trim() == "1" && rules.trim() == "0" { Ok(()) } else { Err(format!("links {links} rules {rules}")) }
    });
}

#[test]
fn containers_outlive_the_server_and_nothing_acknowledged_is_lost() {
    if !Host::available() {
        return;
    }
    let mut server = Server::start(BINARY, &[]);
    client_pod(&server);
    let before = server.get(&["pod", "client"]);
    let started =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone();
    for round in 0..3 {
        let name = format!("kept-{round}");
        server.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]);
        server.end(Signal::SIGKILL);
        assert!(server.host.sh("ps ax").contains("sleep 100000"), "the container never noticed");
        server.launch();
        server.wait_ready();
        server.kubectl(&["get", "configmap", &name]);
        assert_eq!(in_client(&server, "echo still here"), "still here\n");
    }
    let after = server.get(&["pod", "client"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(started(&after), started(&before));

    server.end(Signal::SIGTERM);
    assert!(server.host.sh("ps ax").contains("sleep 100000"), "a stopped server leaves containers alone");
    let reset = server.navarch(&["reset"]);
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    assert!(!server.host.sh("ps ax").contains("sleep 100000"));
    assert_eq!(server.host.sh("ip -o link | grep ': nv' || true"), "");
    assert_eq!(server.host.sh("nft list ruleset"), "");
    assert!(!server.data().exists());
    let mounts = server.host.sh("cat /proc/self/mountinfo");
    assert!(!mounts.contains(&server.data().display().to_string()), "{mounts}");
}

#[test]
fn workloads_keep_their_promises() {
    if !Host::available() {
        return;
    }
    let server = Server::start(BINARY, &[]);
    server.apply(WORKLOADS);
    server.kubectl(&["-n", "works", "rollout", "status", "statefulset/db", "--timeout=60s"]);
    server.kubectl(&["-n", "works", "rollout", "status", "daemonset/ds", "--timeout=60s"]);
    server.kubectl(&["-n", "works", "wait", "job/sum", "--for=condition=Complete", "--timeout=60s"]);
    assert_eq!(server.kubectl(&["-n", "works", "logs", "job/sum"]).trim(), "42");
    server.wait_for(&["-n", "works", "rc/rc"], SOON, |rc| rc["status"]["readyReplicas"] == 1);

    // A deleted pod of a StatefulSet comes back under its name.
    let uid = server.get(&["-n", "works", "pod/db-0"])["metadata"]["uid"].clone();
    server.kubectl(&["-n", "works", "delete", "pod", "db-0"]);
    server.wait_for(&["-n", "works", "pod/db-0"], SOON, |pod| {
        pod["metadata"]["uid"] != uid && pod["status"]["phase"] == "Running"
    });

    // A killed container is restarted; one that takes too much memory says so.
    server.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: dies}
spec:
  containers:
    - {name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 1; exit 4']}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
    - name: c
      image: busybox
      imagePullPolicy: IfNotPresent
      command: [sh, -c, 'tail /dev/zero']
      resources: {limits: {memory: 16Mi}}
",
    );
    server.wait_for(&["pod/dies"], SOON, |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"].as_i64() >= Some(1) && status["lastState"]["terminated"]["exitCode"] == 4
    });
    server.wait_for(&["pod/greedy"], SOON, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
    });
}

#[test]
fn bad_input_gets_one_clear_error() {
    if !Host::available() {
        return;
    }
    let server = Server::start(BINARY, &[]);
    let cases = [
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "spec.containers: Required value"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\nspec: {containers: [{name: c, image: b}]}",
            "metadata.name: Invalid value",
        ),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: many}", "replicas"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {}", "unknown field \"date\""),
        ("apiVersion: v2\nkind: Nothing\nmetadata: {name: a}", "no matches for kind"),
    ];
    for (manifest, want) in cases {
        let output = server.try_kubectl(&["create", "-f", "-"], Some(manifest));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(want), "{want} in: {text}");
    }
    let refused = server.try_kubectl(
        &[
            "--token=wrong",
            "--kubeconfig=/dev/null",
            "--server=https://127.0.0.1:6443",
            "--insecure-skip-tls-verify",
            "get",
            "pods",
        ],
        None,
    );
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unauthorized"), "{refused:?}");

    server.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: lost}\nspec: {containers: [{name: c, image: 'no such image!'}]}",
    );
    server.wait_for(&["pod/lost"], SOON, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "InvalidImageName"
    });
    // A second server on the same directory, and on the same port.
    let second = server.navarch(&["server", "--https-listen-port=7443"]);
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("in use"), "{text}");
}
