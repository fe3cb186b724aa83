//! CRI v1 over a unix socket: each call is translated and handed to [`Runtime`].

mod convert;
mod events;
mod image_service;
mod runtime_service;
mod stats;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::cri::image_service_server::ImageServiceServer;
use crate::cri::runtime_service_server::RuntimeServiceServer;
use crate::images;
use crate::runtime::{Error, Runtime};

/// Largest message: what kubelets allow.
const MESSAGE_MAX: usize = 16 << 20;

/// Serves until `cancel`; calls under way are finished.
pub(crate) async fn serve(
    runtime: Runtime,
    listener: UnixListener,
    cancel: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let runtime_service = RuntimeServiceServer::new(Service { runtime: runtime.clone(), cancel: cancel.clone() });
    let image_service = ImageServiceServer::new(Service { runtime, cancel: cancel.clone() });
    tonic::transport::Server::builder()
        .add_service(runtime_service.max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX))
        .add_service(image_service.max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), cancel.cancelled())
        .await
}

struct Service {
    runtime: Runtime,
    /// Ends streams, which would keep the server from finishing.
    cancel: CancellationToken,
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match &error {
            Error::NotFound { .. } | Error::Image(images::Error::NotFound(_)) => Code::NotFound,
            Error::Exists(_) => Code::AlreadyExists,
            Error::State(_) => Code::FailedPrecondition,
            Error::Invalid(_) | Error::Image(images::Error::Reference { .. }) => Code::InvalidArgument,
            Error::Timeout(_) => Code::DeadlineExceeded,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::Io { .. } | Error::Shim(_) | Error::Network { .. } | Error::Image(_) => Code::Unknown,
        };
        Status::new(code, crate::chain(&error))
    }
}

impl From<images::Error> for Status {
    fn from(error: images::Error) -> Status {
        Error::from(error).into()
    }
}
