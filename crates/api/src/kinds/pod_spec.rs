//! Defaults of a pod's spec, shared by Pod and everything that carries a pod template.

use serde_json::{Value, json};

use super::{access::Members, volume};

/// Fills a pod template: its spec, and the shape of its metadata.
pub(crate) fn default_template(template: &mut Value) {
    template.object("metadata");
    default(template.member("spec"));
}

/// Fills what every pod spec gets, in a Pod and in a template alike.
pub(crate) fn default(spec: &mut Value) {
    mirror_service_account(spec);
    spec.fill("dnsPolicy", "ClusterFirst");
    spec.fill("restartPolicy", "Always");
    spec.object("securityContext");
    if spec["terminationGracePeriodSeconds"].is_null() {
        spec.set("terminationGracePeriodSeconds", 30);
    }
    spec.fill("schedulerName", "default-scheduler");
    for volume in spec.each("volumes") {
        default_volume(volume);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.each(list) {
            default_container(container);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; readers see both.
pub(crate) fn mirror_service_account(spec: &mut Value) {
    let name = match spec.text("serviceAccountName") {
        "" => spec.text("serviceAccount").to_string(),
        name => name.to_string(),
    };
    if !name.is_empty() {
        spec.set("serviceAccountName", name.as_str());
        spec.set("serviceAccount", name);
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    container.fill("imagePullPolicy", policy);
    container.fill("terminationMessagePath", "/dev/termination-log");
    container.fill("terminationMessagePolicy", "File");
    container.object("resources");
    for port in container.each("ports") {
        port.fill("protocol", "TCP");
    }
    for variable in container.each("env") {
        let Some(source) = variable.existing("valueFrom") else { continue };
        if let Some(field) = source.existing("fieldRef") {
            field.fill("apiVersion", "v1");
        }
        if let Some(file) = source.existing("fileKeyRef") {
            file.fill("optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.existing(name) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container.existing("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.existing(name) {
                default_http_get(handler);
            }
        }
    }
}

fn default_probe(probe: &mut Value) {
    probe.fill_zero("timeoutSeconds", 1);
    probe.fill_zero("periodSeconds", 10);
    probe.fill_zero("successThreshold", 1);
    probe.fill_zero("failureThreshold", 3);
    default_http_get(probe);
    if let Some(grpc) = probe.existing("grpc") {
        grpc.fill("service", "");
    }
}

fn default_http_get(handler: &mut Value) {
    if let Some(get) = handler.existing("httpGet") {
        get.fill("path", "/");
        get.fill("scheme", "HTTP");
    }
}

/// `Always` for an image of the tag `latest`, given or implied; `IfNotPresent` for all others and for bad references.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last_segment = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last_segment..].rfind(':') {
        Some(colon) => (&name[..last_segment + colon], Some(&name[last_segment + colon + 1..])),
        None => (name, None),
    };
    // Only the registry's host may hold capitals.
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => repository,
    };
    let well_formed = !path.is_empty() && !path.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace());
    match tag {
        Some("latest") if well_formed => "Always",
        None if well_formed && !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn default_volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |members| members.iter().filter(|(name, source)| *name != "name" && !source.is_null()).count());
    if sources == 0 {
        volume.set("emptyDir", json!({}));
    }
    volume::default_source(volume);
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.existing(name)
            && source["defaultMode"].is_null()
        {
            source.set("defaultMode", 0o644);
        }
    }
    if let Some(source) = volume.existing("downwardAPI") {
        default_downward_items(source);
    }
    if let Some(projected) = volume.existing("projected") {
        for source in projected.each("sources") {
            if let Some(downward) = source.existing("downwardAPI") {
                default_downward_items(downward);
            }
            if let Some(token) = source.existing("serviceAccountToken")
                && token["expirationSeconds"].is_null()
            {
                token.set("expirationSeconds", 3600);
            }
        }
    }
    if let Some(image) = volume.existing("image") {
        let policy = pull_policy(image.text("reference"));
        image.fill("pullPolicy", policy);
    }
    if let Some(ephemeral) = volume.existing("ephemeral")
        && let Some(template) = ephemeral.existing("volumeClaimTemplate")
    {
        template.object("metadata");
        let spec = template.member("spec");
        spec.fill("volumeMode", "Filesystem");
        spec.object("resources");
    }
}

fn default_downward_items(source: &mut Value) {
    for item in source.each("items") {
        if let Some(field) = item.existing("fieldRef") {
            field.fill("apiVersion", "v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
