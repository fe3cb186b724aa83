//! Resource lists as numbers: what containers and pods ask for.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use serde_json::Value;

/// Amounts by resource name.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// Reads a resource list; what is no quantity, validation has refused or will refuse.
pub(super) fn read(list: &Value) -> Amounts {
    list.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| {
            let text = amount.as_str().map(str::to_string).unwrap_or_else(|| amount.to_string());
            Some((name.clone(), text.parse().ok()?))
        })
        .collect()
}

pub(super) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match to.get_mut(name) {
            Some(own) => own.add(amount),
            None => {
                to.insert(name.clone(), *amount);
            }
        }
    }
}

pub(super) fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if to.get(name).is_none_or(|own| own < amount) {
            to.insert(name.clone(), *amount);
        }
    }
}

/// A container's `requests` or `limits`.
pub(super) fn of_container(container: &Value, which: &str) -> Amounts {
    read(&container["resources"][which])
}

/// A pod's effective `requests` or `limits`: containers and sidecars together, or the neediest init phase if that is
/// more; pod-level amounts over both.
pub(super) fn of_pod(spec: &Value, which: &str) -> Amounts {
    let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut total = Amounts::new();
    for container in list("containers") {
        add(&mut total, &of_container(container, which));
    }
    let (mut sidecars, mut phases) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let own = of_container(container, which);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut phases, &sidecars);
        } else {
            let mut phase = own;
            add(&mut phase, &sidecars);
            raise(&mut phases, &phase);
        }
    }
    raise(&mut total, &phases);
    for (name, amount) in read(&spec["resources"][which]) {
        total.insert(name, amount);
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sidecars_add_and_init_phases_are_a_floor() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec =
            json!({"containers": [container("1"), container("500m")], "initContainers": [sidecar, container("2")]});
        assert_eq!(of_pod(&spec, "requests")["cpu"], "2100m".parse().unwrap());
    }
}
