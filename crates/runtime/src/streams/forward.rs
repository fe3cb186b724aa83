//! Port-forward: each connection of the client becomes one inside the pod's network namespace.

use bytes::Bytes;
use streaming::port_forward;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::runtime::{Error, Runtime};

/// Serves a port-forward ticket to its end.
pub(super) async fn forward(
    runtime: &Runtime,
    sandbox: &str,
    accepted: port_forward::Accepted,
) -> Result<(), streaming::Error> {
    let mut session = accepted.session().await?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            next = session.next() => match next {
                Some(Ok(next)) => {
                    let (runtime, sandbox) = (runtime.clone(), sandbox.to_owned());
                    connections.spawn(async move { connect(&runtime, &sandbox, next).await });
                }
                Some(Err(error)) => return Err(error),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    session.close().await;
    Ok(())
}

async fn connect(runtime: &Runtime, sandbox: &str, forward: port_forward::Forward) {
    let port_forward::Forward { port, mut from_client, to_client, error } = forward;
    let stream = match runtime.dial(sandbox, port).await {
        Ok(stream) => stream,
        Err(why) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {}", crate::chain(&why));
            let _ = error.write(Bytes::from(text)).await;
            let _ = error.close().await;
            let _ = to_client.close().await;
            return;
        }
    };
    let _ = error.close().await;
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut chunk = vec![0; 32 * 1024];
        while let Ok(n) = read.read(&mut chunk).await
            && n > 0
        {
            if to_client.write(Bytes::copy_from_slice(&chunk[..n])).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    // Once the server side is done nobody is left to send to.
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = &mut up => down.await,
    }
}

impl Runtime {
    /// A connection to a port on the loopback of the sandbox's network namespace.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<TcpStream, Error> {
        let sandbox = self.sandbox(sandbox)?;
        let netns = sandbox.netns.clone();
        let what = format!("cannot connect to port {port}");
        let dialed = tokio::task::spawn_blocking(move || match netns {
            None => connect_loopback(port),
            // Another thread each: one that has entered a namespace is of no use to others.
            Some(path) => std::thread::spawn(move || {
                let netns = std::fs::File::open(path)?;
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                connect_loopback(port)
            })
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the dialing thread panicked"))),
        });
        let stream = dialed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let stream = stream.and_then(|stream| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
        stream.map_err(|source| Error::Io { what, source })
    }
}

fn connect_loopback(port: u16) -> std::io::Result<std::net::TcpStream> {
    std::net::TcpStream::connect(("127.0.0.1", port))
        .or_else(|first| std::net::TcpStream::connect(("::1", port)).map_err(|_| first))
}
