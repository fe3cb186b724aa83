//! The pod network in a network namespace of the test's own, with real packets.

use std::process::Command;

use testkit::host::Host;

#[test]
fn pods_reach_each_other_the_node_and_their_host_ports() {
    if !Host::available() {
        return;
    }
    let host = Host::new();
    let state = host.path("addresses");
    // The library works on the calling process's namespace: run this test binary again, inside.
    let itself = std::env::current_exe().unwrap();
    let output = host
        .command(&itself)
        .args(["--exact", "pod::tests::inside", "--nocapture"])
        .env("NAVARCH_POD_TEST", &state)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Only does something when the test above runs it inside a host.
#[tokio::test]
async fn inside() {
    use super::*;
    let Some(state) = std::env::var_os("NAVARCH_POD_TEST") else { return };
    let config = Config {
        prefix: "nv".into(),
        cidr: "10.42.0.0/24".parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        state_dir: PathBuf::from(state),
        mtu: 1500,
    };
    let network = PodNetwork::new(config.clone()).await.unwrap();
    for name in ["a", "b"] {
        sh(&format!("ip netns add {name}"));
    }
    let netns = |name: &str| PathBuf::from(format!("/run/netns/{name}"));
    let port = HostPort { protocol: "tcp".into(), host_port: 8080, host_ip: None, pod_port: 80 };
    let a = network.setup(&netns("a"), "sandbox-a", &[port]).await.unwrap()[0];
    let b = network.setup(&netns("b"), "sandbox-b", &[]).await.unwrap()[0];
    assert_eq!((a.to_string().as_str(), b.to_string().as_str()), ("10.42.0.2", "10.42.0.3"));

    let server = "busybox httpd -p 80 -h /proc/sys/kernel";
    sh(&format!("nsenter --net=/run/netns/a {server}"));
    let fetch = |from: &str, url: &str| {
        let (address, port) = url.split_once(':').unwrap();
        let request = "printf 'GET /ostype HTTP/1.0\\r\\n\\r\\n'";
        sh(&format!("{request} | {from} timeout 5 busybox nc {address} {port}"))
    };
    for (from, url) in [
        ("nsenter --net=/run/netns/b", "10.42.0.2:80"),
        ("", "10.42.0.2:80"),
        ("", "10.91.0.1:8080"),
        ("", "127.0.0.1:8080"),
        ("nsenter --net=/run/netns/b", "10.42.0.1:8080"),
        ("nsenter --net=/run/netns/a", "10.42.0.1:8080"),
    ] {
        assert!(fetch(from, url).contains("Linux"), "{from} {url}");
    }

    drop(network);
    let again = PodNetwork::new(config.clone()).await.unwrap();
    again.reconcile(&["sandbox-a".to_string()]).await.unwrap();
    assert!(!sh("ip -o link").contains(&again.link_name("sandbox-b")), "what nobody owns is gone");
    assert!(fetch("", "10.91.0.1:8080").contains("Linux"), "what runs goes on");
    again.teardown("sandbox-a").await.unwrap();
    assert!(!nft::query(&["list", "ruleset"]).await.unwrap().contains("8080"));
    remove_all("nv", &config.state_dir).await.unwrap();
    assert!(!sh("ip -o link").contains(": nv"));
    assert!(!nft::query(&["list", "ruleset"]).await.unwrap().contains("navarch"));
}
