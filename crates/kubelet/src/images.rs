//! Images for containers: is it there, may it be pulled, with which credentials.
//!
//! Pulls run beside the pod's worker: a container whose image is on its way waits, its pod goes on. The same image
//! with the same credentials is pulled once for all who wait for it.

pub(crate) mod credentials;
pub(crate) mod gc;
mod reference;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::cri::{self, Runtime, v1};
pub(crate) use reference::normalize;

/// What a container needs to know of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    /// As CRI wants it in a container's configuration.
    pub(crate) reference: String,
    /// User that the image was built to run as.
    pub(crate) uid: Option<i64>,
    pub(crate) user: String,
    pub(crate) size: u64,
}

/// A finished pull.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    pub(crate) took: Duration,
    pub(crate) waited: Duration,
    pub(crate) size: u64,
}

/// Pulls and looks images up. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    runtime: Runtime,
    parallel: Arc<Semaphore>,
    under_way: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
    /// Last time that a pod used an image, by image id, for the collector.
    used: Arc<parking_lot::Mutex<HashMap<String, Timestamp>>>,
}

impl Images {
    pub(crate) fn new(runtime: Runtime, parallel: usize) -> Self {
        let parallel = Arc::new(Semaphore::new(parallel.max(1)));
        Self { runtime, parallel, under_way: Arc::default(), used: Arc::default() }
    }

    pub(crate) async fn find(&self, image: &str) -> Result<Option<Present>, cri::Error> {
        let Some(found) = self.runtime.image_status(image).await? else { return Ok(None) };
        self.used.lock().insert(found.id.clone(), Timestamp::now());
        Ok(Some(present(&found)))
    }

    /// Pulls with each of `auths` in turn, then without any. The last failure counts.
    pub(crate) async fn pull(&self, image: &str, auths: &[v1::AuthConfig]) -> Result<Pulled, cri::Error> {
        let asked = Instant::now();
        // One at a time per image; a second one finds it there and is done at once.
        let gate = self.under_way.lock().await.entry(image.to_owned()).or_default().clone();
        let result = {
            let _turn = gate.lock().await;
            let _permit = self.parallel.acquire().await;
            let started = Instant::now();
            let mut attempts = auths.iter().cloned().map(Some).collect::<Vec<_>>();
            if attempts.is_empty() {
                attempts.push(None);
            }
            let mut result = Ok(());
            for auth in attempts {
                result = self.runtime.pull_image(image, auth).await.map(drop);
                if result.is_ok() {
                    break;
                }
            }
            let took = started.elapsed();
            match result {
                Err(error) => Err(error),
                Ok(()) => {
                    let size = self.find(image).await?.map_or(0, |present| present.size);
                    Ok(Pulled { took, waited: asked.elapsed(), size })
                }
            }
        };
        let mut under_way = self.under_way.lock().await;
        if Arc::strong_count(&gate) == 2 {
            under_way.remove(image);
        }
        result
    }

    /// When each image was last asked for by a pod; images never asked for are absent.
    fn last_used(&self) -> HashMap<String, Timestamp> {
        self.used.lock().clone()
    }
}

fn present(image: &v1::Image) -> Present {
    let uid = image.uid.as_ref().map(|uid| uid.value);
    // An image without a user runs as root.
    let uid = uid.or_else(|| image.username.is_empty().then_some(0));
    Present { reference: image.id.clone(), uid, user: image.username.clone(), size: image.size }
}
