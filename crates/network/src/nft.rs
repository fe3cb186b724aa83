//! nftables through `nft -f -`: whole transactions of text.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start nft; install the package nftables")]
    Start(#[source] std::io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// Applies `rules` in one transaction: all of them or none.
pub async fn apply(rules: &str) -> Result<(), Error> {
    run(&["-f", "-"], rules).await.map(drop)
}

/// What `nft ARGUMENTS` prints.
pub async fn query(arguments: &[&str]) -> Result<String, Error> {
    run(arguments, "").await
}

/// Deletes a table if it is there.
pub async fn delete_table(family: &str, name: &str) -> Result<(), Error> {
    // Declaring a table first makes the deletion of a missing one succeed.
    apply(&format!("table {family} {name}\ndelete table {family} {name}\n")).await
}

async fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft that ends early says why on stderr.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(Error::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(stderr.lines().take(4).collect::<Vec<_>>().join("; ")))
}
