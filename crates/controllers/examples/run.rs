//! Runs controllers against any cluster: `run KUBECONFIG [CONTROLLER...]`. Ctrl-C stops them.

use std::{path::Path, sync::Arc};

use client::{Informers, Recorder};
use navarch_controllers::{Clock, Config, Context};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((kubeconfig, names)) = arguments.split_first() else {
        return Err("usage: run KUBECONFIG [CONTROLLER...]".into());
    };
    let client = client::from_kubeconfig(Path::new(kubeconfig)).await?;
    let cancel = CancellationToken::new();
    let config = Config {
        cluster_ca_pem: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
        cluster_cidrs: vec!["10.42.0.0/16".parse()?],
        ..Config::default()
    };
    let context = Context {
        informers: Informers::new(client.clone(), cancel.clone()),
        client_for: Arc::new({
            let client = client.clone();
            move |_| client.clone()
        }),
        recorder_for: Arc::new(move |component| Recorder::new(client.clone(), component, "")),
        cancel: cancel.clone(),
        clock: Clock::system(),
        config: Arc::new(config),
    };
    let enabled: Vec<&str> = names.iter().map(String::as_str).collect();
    let handles = navarch_controllers::start(&context, &enabled)?;
    tokio::signal::ctrl_c().await?;
    cancel.cancel();
    for handle in handles {
        handle.await?;
    }
    Ok(())
}
