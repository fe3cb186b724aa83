//! Labels and annotations that tie a sandbox or a container to its pod.
//!
//! The names are those every kubelet uses, so `crictl` and log collectors read them, and a kubelet that starts anew
//! adopts what it finds.

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Hash of the parts of a container's spec whose change means a new container.
pub(crate) const HASH: &str = "io.kubernetes.container.hash";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Where a pod came from: `api`, or `file` for static pods.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
/// The UID of a static pod: a hash of its manifest.
pub(crate) const STATIC_HASH: &str = "kubernetes.io/config.hash";
/// On a mirror pod: the hash of the static pod that it shows.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
