//! The calls about images.

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Service, convert, stats};
use crate::cri;
use crate::cri::image_service_server::ImageService;
use crate::images::Credentials;

type Answer<T> = Result<Response<T>, Status>;

/// Things listed in one message of a stream.
pub(super) const BATCH: usize = 100;

/// `all` in messages of [`BATCH`] at most, at least one.
pub(super) fn batches<T: Send + 'static, M: Send + 'static>(
    all: Vec<T>,
    message: impl Fn(Vec<T>) -> M,
) -> tokio_stream::wrappers::ReceiverStream<Result<M, Status>> {
    let mut rest = all.into_iter();
    let mut messages = Vec::new();
    loop {
        let batch: Vec<T> = rest.by_ref().take(BATCH).collect();
        if batch.is_empty() && !messages.is_empty() {
            break;
        }
        messages.push(message(batch));
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(messages.len());
    for message in messages {
        // There is room for all of them.
        let _ = sender.try_send(Ok(message));
    }
    ReceiverStream::new(receiver)
}

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = ReceiverStream<Result<cri::StreamImagesResponse, Status>>;

    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        let images = convert::images(&self.runtime, request.into_inner().filter);
        Ok(Response::new(cri::ListImagesResponse { images }))
    }

    async fn stream_images(&self, request: Request<cri::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        let images = convert::images(&self.runtime, request.into_inner().filter);
        Ok(Response::new(batches(images, |images| cri::StreamImagesResponse { images })))
    }

    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Answer<cri::ImageStatusResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        convert::check_reference(&name)?;
        let found = self.runtime.inner.images.find(&name);
        let info = found.as_ref().filter(|_| request.verbose).map(|image| convert::image_info(image));
        let image = found.map(|image| convert::image(&image));
        Ok(Response::new(cri::ImageStatusResponse { image, info: info.unwrap_or_default() }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        convert::check_reference(&name)?;
        let auth = request.auth.unwrap_or_default();
        if !auth.identity_token.is_empty() && auth.username.is_empty() && auth.registry_token.is_empty() {
            let text = "identity tokens are not supported; use a user name and password or a registry token";
            return Err(Status::unimplemented(text));
        }
        let credentials = Credentials::new(&auth.username, &auth.password, &auth.auth, &auth.registry_token)?;
        let image = self.runtime.inner.images.pull(&name, &credentials).await?;
        Ok(Response::new(cri::PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(&self, request: Request<cri::RemoveImageRequest>) -> Answer<cri::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        convert::check_reference(&name)?;
        let runtime = self.runtime.clone();
        let in_use = runtime.layers_in_use();
        let removed = tokio::task::spawn_blocking(move || runtime.inner.images.remove(&name, &in_use)).await;
        removed.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let runtime = self.runtime.clone();
        let usage = tokio::task::spawn_blocking(move || stats::image_file_systems(&runtime)).await;
        Ok(Response::new(usage.map_err(|error| Status::internal(error.to_string()))?))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn lists_come_in_batches_and_never_without_a_message() {
        for (count, expect) in [(0, vec![0]), (1, vec![1]), (BATCH, vec![BATCH]), (BATCH + 1, vec![BATCH, 1])] {
            let sizes: Vec<usize> =
                batches(vec![(); count], |batch| batch.len()).map(|size| size.unwrap()).collect().await;
            assert_eq!(sizes, expect, "{count}");
        }
    }
}
