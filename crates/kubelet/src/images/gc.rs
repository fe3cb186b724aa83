//! Removes images that no container uses when the disk that holds them fills up.
//!
//! Between two thresholds, as upstream: above the high one, the longest unused go until usage would be at the low one.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Images;
use crate::cri::{self, v1};

/// An image younger than this is not removed: a pod may be about to use it.
const MIN_AGE: Duration = Duration::from_secs(120);

/// Percent of the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

/// Bytes to free so that usage falls to the low threshold; zero below the high one.
pub(crate) fn excess(capacity: u64, available: u64, thresholds: Thresholds) -> u64 {
    if capacity == 0 {
        return 0;
    }
    let used = capacity.saturating_sub(available);
    if used * 100 < thresholds.high * capacity {
        return 0;
    }
    (capacity * (100 - thresholds.low) / 100).saturating_sub(available)
}

impl Images {
    /// Removes unused images until `wanted` bytes are free, and says how many were freed.
    pub(crate) async fn collect(&self, wanted: u64) -> Result<u64, cri::Error> {
        let containers = self.runtime.containers(Default::default()).await?;
        let in_use: HashSet<String> = containers
            .iter()
            .flat_map(|container| {
                let image = container.image.as_ref().map(|image| image.image.clone());
                [Some(container.image_ref.clone()), Some(container.image_id.clone()), image].into_iter().flatten()
            })
            .collect();
        let last = self.last_used();
        let now = Timestamp::now();
        let young = |image: &v1::Image| {
            last.get(&image.id)
                .is_some_and(|used| Duration::try_from(now.duration_since(*used)).unwrap_or_default() < MIN_AGE)
        };
        let mut idle: Vec<v1::Image> = self.runtime.images().await?;
        idle.retain(|image| {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            !image.pinned && !young(image) && !names.into_iter().any(|name| in_use.contains(name))
        });
        idle.sort_by_key(|image| last.get(&image.id).copied());
        let mut freed = 0;
        for image in idle {
            if freed >= wanted {
                break;
            }
            self.runtime.remove_image(&image.id).await?;
            tracing::info!(image = image.id, bytes = image.size, "removed an unused image");
            freed += image.size;
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_the_thresholds() {
        let thresholds = Thresholds { high: 85, low: 80 };
        for (capacity, available, expect) in [(100, 50, 0), (100, 16, 0), (100, 15, 5), (100, 0, 20), (0, 0, 0)] {
            assert_eq!(excess(capacity, available, thresholds), expect, "{capacity} {available}");
        }
    }
}
