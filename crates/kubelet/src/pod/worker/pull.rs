//! The images of one pod's containers: found, being pulled, or why not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use tokio::task::JoinHandle;

use super::Worker;
use crate::cri;
use crate::images::{self, Present, Pulled, credentials};
use crate::pod::PodExt;
use crate::pod::backoff::Backoff;
use crate::pod::status::Waiting;
use crate::refer;

/// Pulls under way by container, and how long failed ones wait.
#[derive(Default)]
pub(super) struct Pulls {
    running: HashMap<String, JoinHandle<Result<Pulled, cri::Error>>>,
    backoff: Backoff,
    failed: HashMap<String, (Timestamp, String)>,
}

impl Drop for Pulls {
    fn drop(&mut self) {
        for pull in self.running.values() {
            pull.abort();
        }
    }
}

/// What became of a container's image.
pub(super) enum Image {
    Ready(Present),
    /// On its way: the worker is woken when it is there.
    Pulling,
    /// Not to be had for now; ask again after the time, if there is one.
    Waiting(Waiting, Option<Timestamp>),
}

impl Worker {
    /// Finds the image of a container, or starts to pull it.
    pub(super) async fn image(&mut self, pod: &core::Pod, container: &core::Container) -> Image {
        let named = container.image.as_deref().unwrap_or_default();
        self.image_by_name(pod, &container.name, named, container.image_pull_policy.as_deref()).await
    }

    pub(super) async fn image_by_name(
        &mut self,
        pod: &core::Pod,
        who: &str,
        named: &str,
        policy: Option<&str>,
    ) -> Image {
        let about = refer::container(pod, who);
        let recorder = self.shared.recorder.clone();
        let image = match images::normalize(named) {
            Ok(image) => image,
            Err(error) => {
                let message = format!("Failed to apply default image tag \"{named}\": {error}");
                recorder.warning(&about, "InspectFailed", &message);
                return Image::Waiting(Waiting { reason: "InvalidImageName".into(), message }, None);
            }
        };
        if let Some(pull) = self.pulls.running.get_mut(who) {
            if !pull.is_finished() {
                return Image::Pulling;
            }
            let result = pull.await;
            self.pulls.running.remove(who);
            match result {
                Ok(Ok(pulled)) => {
                    self.pulls.backoff.forget(&image);
                    self.pulls.failed.remove(&image);
                    let (took, waited) = (show(pulled.took), show(pulled.waited));
                    recorder.normal(&about, "Pulled", format!(
                        "Successfully pulled image \"{named}\" in {took} ({waited} including waiting). Image size: {} bytes.",
                        pulled.size
                    ));
                    return match self.shared.images.find(&image).await {
                        Ok(Some(present)) => Image::Ready(present),
                        Ok(None) => failed("ErrImagePull", "the image vanished after its pull".to_owned()),
                        Err(error) => failed("ImageInspectError", error.message()),
                    };
                }
                Ok(Err(error)) => {
                    let text = error.message();
                    let now = Timestamp::now();
                    self.pulls.backoff.next(&image, now);
                    self.pulls.failed.insert(image.clone(), (now, text.clone()));
                    recorder.warning(&about, "Failed", format!("Failed to pull image \"{named}\": {text}"));
                    recorder.warning(&about, "Failed", "Error: ErrImagePull");
                    let retry = now.checked_add(Duration::from_secs(1)).ok();
                    return Image::Waiting(Waiting { reason: "ErrImagePull".into(), message: text }, retry);
                }
                Err(error) => return failed("ErrImagePull", format!("the pull was given up: {error}")),
            }
        }
        let found = match self.shared.images.find(&image).await {
            Ok(found) => found,
            Err(error) => {
                return failed(
                    "ImageInspectError",
                    format!("Failed to inspect image \"{named}\": {}", error.message()),
                );
            }
        };
        let policy = policy.unwrap_or(if image.ends_with(":latest") { "Always" } else { "IfNotPresent" });
        match (found, policy) {
            (Some(present), "Never" | "IfNotPresent") => {
                recorder.normal(
                    &about,
                    "Pulled",
                    format!("Container image \"{named}\" already present on machine and can be accessed by the pod"),
                );
                return Image::Ready(present);
            }
            (None, "Never") => {
                let message = format!("Container image \"{named}\" is not present with pull policy of Never");
                recorder.warning(&about, "ErrImageNeverPull", &message);
                recorder.warning(&about, "Failed", "Error: ErrImageNeverPull");
                return Image::Waiting(Waiting { reason: "ErrImageNeverPull".into(), message }, None);
            }
            _ => {}
        }
        let now = Timestamp::now();
        if let Some((since, error)) = self.pulls.failed.get(&image).cloned()
            && let Some((left, _)) = self.pulls.backoff.wait(&image, since, now)
        {
            let message = format!("Back-off pulling image \"{named}\"");
            recorder.normal(&about, "BackOff", &message);
            recorder.warning(&about, "Failed", "Error: ImagePullBackOff");
            let message = format!("{message}: ErrImagePull: {error}");
            return Image::Waiting(Waiting { reason: "ImagePullBackOff".into(), message }, now.checked_add(left).ok());
        }
        recorder.normal(&about, "Pulling", format!("Pulling image \"{named}\""));
        let secrets = self.pull_secrets(pod).await;
        let auths = credentials::for_image(&image, &secrets);
        let (images, wake) = (self.shared.images.clone(), self.wake.clone());
        let pull = tokio::spawn(async move {
            // Woken when the task ends: the notice must come after the result.
            let _wake = WakeOnDrop(wake);
            images.pull(&image, &auths).await
        });
        self.pulls.running.insert(who.to_owned(), pull);
        Image::Pulling
    }

    async fn pull_secrets(&self, pod: &core::Pod) -> Vec<Arc<core::Secret>> {
        let mut secrets = Vec::new();
        for reference in pod.specification().image_pull_secrets.iter().flatten() {
            match self.objects.get::<core::Secret>(pod.namespace(), &reference.name).await {
                Ok(Some(secret)) => secrets.push(secret),
                Ok(None) | Err(_) => self.shared.recorder.warning(
                    &refer::pod(pod),
                    "FailedToRetrieveImagePullSecret",
                    format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    ),
                ),
            }
        }
        secrets
    }
}

fn failed(reason: &str, message: String) -> Image {
    let retry = Timestamp::now().checked_add(Duration::from_secs(5)).ok();
    Image::Waiting(Waiting { reason: reason.to_owned(), message }, retry)
}

/// Milliseconds below a second, seconds with three decimals above, as durations are shown in events.
fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        format!("{millis}ms")
    } else {
        format!("{}s", duration.as_secs_f64().mul_add(1000.0, 0.5).floor() / 1000.0)
    }
}

struct WakeOnDrop(Arc<tokio::sync::Notify>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
