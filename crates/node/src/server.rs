//! `navarch server`: everything, in order.
//!
//! ```text
//! data directory -> certificates -> datastore -> API server -> controllers, scheduler -> runtime -> kubelet -> proxy, DNS
//! ```
//!
//! Stopping goes the other way; containers stay.

use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agent,
    config::Server as Flags,
    control_plane::{ControlPlane, Facts},
    machine::{self, Level},
    supervisor::Supervisor,
};

/// How long the node may take to become Ready before that is said.
const SLOW: Duration = Duration::from_secs(30);

/// Runs a server until `cancel`, telling its progress with `say`.
pub async fn run(flags: Flags, cancel: CancellationToken, say: impl Fn(&str)) -> anyhow::Result<()> {
    let began = Instant::now();
    let facts = Facts::new(flags)?;
    if !facts.flags.disable_agent {
        look_at_machine()?;
    }
    std::fs::create_dir_all(&facts.layout.data)
        .with_context(|| format!("cannot create the data directory {}", facts.layout.data.display()))?;
    let supervisor = Supervisor::default();
    let inner = CancellationToken::new();
    let started = start(&facts, &supervisor, &inner, &cancel, began, &say).await;
    let control_plane = match started {
        Ok(control_plane) => control_plane,
        Err(error) => {
            inner.cancel();
            supervisor.stop().await;
            return Err(error);
        }
    };
    cancel.cancelled().await;
    say("stopping; containers stay");
    inner.cancel();
    supervisor.stop().await;
    control_plane.close();
    Ok(())
}

async fn start(
    facts: &Facts,
    supervisor: &Supervisor,
    inner: &CancellationToken,
    cancel: &CancellationToken,
    began: Instant,
    say: &impl Fn(&str),
) -> anyhow::Result<ControlPlane> {
    let since = |began: Instant| format!("{:.2} s", began.elapsed().as_secs_f64());
    let control_plane = ControlPlane::start(facts, supervisor, inner).await?;
    say(&format!("API ready on port {} after {}", facts.flags.https_listen_port, since(began)));
    control_plane.start_loops(facts, supervisor)?;
    let kubeconfig = facts.flags.write_kubeconfig.clone().unwrap_or_else(|| facts.layout.kubeconfig());
    if !facts.flags.disable_agent {
        agent::start(facts, &control_plane, supervisor, inner).await?;
        say("node components started; waiting for the node to be Ready");
        tokio::select! {
            () = node_ready(facts, &control_plane) => say(&format!("node {} is Ready after {}", facts.node_name, since(began))),
            () = tokio::time::sleep(SLOW) => say("the node is not Ready yet; `kubectl describe node` says why"),
            () = cancel.cancelled() => return Ok(control_plane),
        }
    }
    say(&format!("export KUBECONFIG={}", kubeconfig.display()));
    Ok(control_plane)
}

/// Refuses a machine that cannot run a node, and says what it lacks.
fn look_at_machine() -> anyhow::Result<()> {
    let findings = machine::check();
    for finding in findings.iter().filter(|finding| finding.level == Level::Lacking) {
        tracing::warn!("{}: {}; {}", finding.subject, finding.detail, finding.remedy);
    }
    let missing: Vec<String> = findings
        .iter()
        .filter(|finding| finding.level == Level::Missing)
        .map(|finding| format!("{}: {}; {}", finding.subject, finding.detail, finding.remedy))
        .collect();
    anyhow::ensure!(missing.is_empty(), "this machine cannot run a node\n  {}", missing.join("\n  "));
    Ok(())
}

/// Returns once the node's Ready condition is True.
async fn node_ready(facts: &Facts, control_plane: &ControlPlane) {
    let nodes = control_plane.informers.of::<Node>();
    let (seen, mut ready) = watch::channel(false);
    let name = facts.node_name.clone();
    nodes.on_change(move |change| {
        let Some(node) = change.new.as_ref().filter(|node| node.metadata.name.as_deref() == Some(&name)) else {
            return;
        };
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let now = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
        seen.send_if_modified(|ready| std::mem::replace(ready, now) != now);
    });
    // The sender is the informer's: it lives as long as the control plane.
    let _ = ready.wait_for(|ready| *ready).await;
}
