//! Measures the release binary on a host of its own; `cargo xtask bench` builds and runs it.
//!
//! Prints a table, and writes the same as JSON to the file named first: `bench JSON BINARY [IDLE_SECONDS]`.
//! Times count from the exec of the server; memory is PSS, which shares pages out among those that use them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use navarch_testkit::{host::Host, server::Server, wait};
use serde_json::{Value, json};

/// Requests in flight in the API measurements.
const CONCURRENCY: usize = 32;
const OPERATIONS: usize = 4000;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [inside, kubeconfig] if inside == "--inside" => inside_host(Path::new(kubeconfig)),
        [out, binary, rest @ ..] => {
            let idle_s = rest.first().map_or(Ok(30), |text| text.parse())?;
            measure(Path::new(out), binary, idle_s)
        }
        _ => Err("usage: bench JSON BINARY [IDLE_SECONDS]".into()),
    }
}

fn measure(out: &Path, binary: &str, idle_s: u64) -> Anyhow<()> {
    if !Host::available() {
        return Err("the bench makes a host of namespaces: run it as root".into());
    }
    let mut rows = Vec::new();
    let mut add = |name: &str, value: f64, unit: &str| {
        println!("{name:<44} {value:>12.2} {unit}");
        rows.push(json!({"name": name, "value": value, "unit": unit}));
    };
    add("binary", fs::metadata(binary)?.len() as f64 / 1e6, "MB");
    let mut server = Server::prepare(binary, &[]);
    for start in ["cold", "warm"] {
        let began = Instant::now();
        let seen = server.log_path();
        let before = fs::read_to_string(&seen).unwrap_or_default().len();
        server.launch();
        let until = |what: &str| {
            wait::until(what, Duration::from_secs(60), || {
                let text = fs::read_to_string(&seen).unwrap_or_default();
                if text[before..].contains(what) { Ok(()) } else { Err(text) }
            });
            began.elapsed().as_secs_f64() * 1e3
        };
        add(&format!("{start} start to API ready"), until("API ready"), "ms");
        add(&format!("{start} start to node Ready"), until("is Ready after"), "ms");
        if start == "cold" {
            server.end(nix::sys::signal::Signal::SIGTERM);
        }
    }
    server.kubectl(&["run", "idle", "--image=busybox", "--image-pull-policy=IfNotPresent", "--", "sleep", "100000"]);
    server.kubectl(&["wait", "pod/idle", "--for=condition=Ready", "--timeout=60s"]);

    let processes = server.processes();
    let ticks: u64 = processes.iter().map(|process| cpu_ticks(process.pid)).sum();
    wait::pause(Duration::from_secs(idle_s));
    let used = processes.iter().map(|process| cpu_ticks(process.pid)).sum::<u64>() - ticks;
    add("idle CPU of one core, server and shims", used as f64 / idle_s as f64, "%");
    for process in &processes {
        let name = if process.shim { "idle memory of a shim or its zygote" } else { "idle memory of the server" };
        add(name, pss_kib(process.pid) as f64 / 1024.0, "MiB PSS");
    }

    let itself = std::env::current_exe()?;
    let output = server.host.command(&itself).arg("--inside").arg(server.data().join("kubeconfig")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line)?;
        add(
            row["name"].as_str().unwrap_or_default(),
            row["value"].as_f64().unwrap_or_default(),
            row["unit"].as_str().unwrap_or_default(),
        );
    }
    let server_process = server.processes().into_iter().find(|process| !process.shim);
    if let Some(process) = server_process {
        add("memory of the server after the load", pss_kib(process.pid) as f64 / 1024.0, "MiB PSS");
    }
    fs::write(out, serde_json::to_string_pretty(&rows)?)?;
    Ok(())
}

/// Clock ticks (hundredths of a second) that a process has used.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.get(11..13).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn row(name: &str, value: f64, unit: &str) {
    println!("{}", json!({"name": name, "value": value, "unit": unit}));
}

#[tokio::main]
async fn inside_host(kubeconfig: &Path) -> Anyhow<()> {
    let client = client::from_kubeconfig(&PathBuf::from(kubeconfig)).await?;
    for count in [1, 30] {
        row(&format!("{count} pod(s), create to all Running"), pods(&client, count).await?, "ms");
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let object = |index: usize| -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {"name": format!("bench-{index}"), "labels": {"bench": "yes"}},
            "data": {"text": "x".repeat(800)},
        }))
        .unwrap_or_default()
    };
    let name = |index: usize| format!("bench-{index}");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"patched": "yes"}}}));
    let create = |index: usize| {
        let (maps, object) = (maps.clone(), object(index));
        async move { maps.create(&PostParams::default(), &object).await.map(drop) }
    };
    each("create", create).await?;
    each("get", |index| {
        let (maps, name) = (maps.clone(), name(index));
        async move { maps.get(&name).await.map(drop) }
    })
    .await?;
    each("merge patch", |index| {
        let (maps, name, patch) = (maps.clone(), name(index), patch.clone());
        async move { maps.patch(&name, &PatchParams::default(), &patch).await.map(drop) }
    })
    .await?;
    let began = Instant::now();
    let all = maps.list(&ListParams::default()).await?;
    row(
        &format!("list of {} objects, client's decoding included", all.items.len()),
        began.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    each("delete", |index| {
        let (maps, name) = (maps.clone(), name(index));
        async move { maps.delete(&name, &DeleteParams::default()).await.map(drop) }
    })
    .await
}

/// Runs an operation on every object, [`CONCURRENCY`] at a time.
async fn each<F, R>(name: &str, operation: F) -> Anyhow<()>
where
    F: Fn(usize) -> R,
    R: Future<Output = Result<(), kube::Error>>,
{
    let began = Instant::now();
    let mut took: Vec<Duration> = Vec::with_capacity(OPERATIONS);
    let mut running = stream::iter(0..OPERATIONS)
        .map(|index| {
            let operation = operation(index);
            async move {
                let began = Instant::now();
                operation.await.map(|()| began.elapsed())
            }
        })
        .buffer_unordered(CONCURRENCY);
    while let Some(done) = running.next().await {
        took.push(done?);
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    row(name, OPERATIONS as f64 / began.elapsed().as_secs_f64(), "per second");
    row(&format!("{name}, median"), at(0.5), "ms");
    row(&format!("{name}, 99th percentile"), at(0.99), "ms");
    Ok(())
}

/// Milliseconds from the first create until all pods are seen Running; they are deleted afterwards.
async fn pods(client: &Client, count: usize) -> Anyhow<f64> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let began = Instant::now();
    let label = format!("bench-{count}");
    for index in 0..count {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{label}-{index}"), "labels": {"bench": label}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"],
            }]},
        }))?;
        api.create(&PostParams::default(), &pod).await?;
    }
    let mine = ListParams::default().labels(&format!("bench={label}"));
    let params = kube::api::WatchParams::default().labels(&format!("bench={label}"));
    let events = api.watch(&params, "0").await?;
    futures::pin_mut!(events);
    let mut running = std::collections::BTreeSet::new();
    while running.len() < count {
        let Some(event) = events.next().await else { return Err("the watch ended".into()) };
        if let kube::api::WatchEvent::Added(pod) | kube::api::WatchEvent::Modified(pod) = event?
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        {
            running.extend(pod.metadata.name);
        }
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    api.delete_collection(&DeleteParams::default(), &mine).await?;
    Ok(took)
}
