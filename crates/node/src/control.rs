//! The local socket on which this machine's root manages the runtime's images: `RUN/control.sock`, mode 0600.
//!
//! ```text
//! GET    /images                 [{"id","tags":[],"bytes"}]
//! POST   /images   PATH          imports the archive or layout at the absolute path in the body
//! DELETE /images/NAME            takes a name away, and the image with its last name
//! ```
//!
//! No TLS: a unix socket that only root can open needs none.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use runtime::{Runtime, images::Image};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Serves until cancelled.
pub(crate) async fn serve(runtime: Runtime, socket: PathBuf, cancel: CancellationToken) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(&socket); // left by an earlier process
    let listener =
        tokio::net::UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    let router = Router::new()
        .route("/images", get(list).post(import))
        .route("/images/{*name}", delete(remove))
        .with_state(runtime);
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await?;
    Ok(())
}

fn describe(image: &Image) -> Value {
    json!({"id": image.id, "tags": image.tags, "bytes": image.size})
}

fn refuse(error: &dyn std::error::Error) -> Response {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    (StatusCode::UNPROCESSABLE_ENTITY, text).into_response()
}

async fn list(State(runtime): State<Runtime>) -> Json<Vec<Value>> {
    Json(runtime.images().list().iter().map(|image| describe(image)).collect())
}

async fn import(State(runtime): State<Runtime>, path: String) -> Response {
    let path = PathBuf::from(path);
    let imported = tokio::task::spawn_blocking(move || runtime.images().import(&path)).await;
    match imported {
        Ok(Ok(images)) => Json(images.iter().map(|image| describe(image)).collect::<Vec<_>>()).into_response(),
        Ok(Err(error)) => refuse(&error),
        Err(error) => refuse(&error),
    }
}

async fn remove(State(runtime): State<Runtime>, Path(name): Path<String>) -> Response {
    match runtime.remove_image(&name) {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => (StatusCode::NOT_FOUND, format!("there is no image {name}")).into_response(),
        Err(error) => refuse(&error),
    }
}
