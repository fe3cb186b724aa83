//! The binary: arguments to configuration to a role.

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{Parser, Subcommand};
use node::{
    config,
    control_plane::Facts,
    layout::Layout,
    machine::{self, Level},
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A whole Kubernetes in one binary
#[derive(Parser)]
#[command(name = "navarch", version = VERSION, args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!("v1.36.2+navarch.", env!("CARGO_PKG_VERSION"));

#[derive(Subcommand)]
enum Command {
    /// Run a control plane and, unless told otherwise, a node
    Server(Box<config::Server>),
    /// Manage the node's images
    Image {
        /// Data directory of the running server
        #[arg(long, global = true, value_name = "DIR", env = "NAVARCH_DATA_DIR", default_value = "/var/lib/navarch")]
        data_dir: std::path::PathBuf,
        #[command(subcommand)]
        command: cli::image::Command,
    },
    /// Say whether this machine can run a node, and what to do about it
    Check,
    /// Stop all containers and remove every trace of the cluster from this machine
    Reset(Box<config::Server>),
}

fn main() -> ExitCode {
    // The shim forks: it must run before anything makes a thread.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "shim") {
        return runtime::shim::main();
    }
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("navarch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse_from(arguments()?);
    match arguments.command {
        Command::Server(flags) => {
            log("info");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(*flags))?;
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        }
        Command::Image { data_dir, command } => {
            let socket = Layout::new(std::path::absolute(data_dir)?).run().join("control.sock");
            cli::image::run(&command, &socket, &mut std::io::stdout())?;
        }
        Command::Check => return Ok(check()),
        Command::Reset(flags) => {
            log("warn");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let facts = Facts::new(*flags)?;
            runtime.block_on(node::reset::reset(&facts, say))?;
            say("this machine has no trace of a cluster left");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The process's arguments, with those of the configuration file behind `server`.
fn arguments() -> anyhow::Result<Vec<OsString>> {
    let mut all: Vec<OsString> = std::env::args_os().collect();
    if all.get(1).is_some_and(|command| command == "server" || command == "reset") {
        let given = all.split_off(2);
        all.extend(config::with_file(&given)?);
    }
    Ok(all)
}

fn log(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn say(text: &str) {
    // Progress for people; a closed terminal is no reason to stop.
    let _ = writeln!(std::io::stdout(), "navarch: {text}");
}

async fn serve(flags: config::Server) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        stop.cancel();
    });
    node::server::run(flags, cancel, say).await
}

fn check() -> ExitCode {
    let findings = machine::check();
    for finding in &findings {
        let mark = match finding.level {
            Level::Fine => "ok     ",
            Level::Lacking => "lacking",
            Level::Missing => "MISSING",
        };
        println!("{mark}  {:<18} {}", finding.subject, finding.detail);
        if !finding.remedy.is_empty() {
            println!("         {:<18} {}", "", finding.remedy);
        }
    }
    if findings.iter().any(|finding| finding.level == Level::Missing) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
