//! ComponentStatus: computed when asked for, never stored (deprecated since 1.19).

use crate::kinds::{access::Members, builtin::Kind, cells};

pub(crate) static KIND: Kind = Kind {
    row: Some(|component, _| {
        let healthy = component["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition.text("type") == "Healthy");
        let (status, message, error) = match healthy {
            None => ("Unknown", "", ""),
            Some(condition) => (
                if condition.text("status") == "True" { "Healthy" } else { "Unhealthy" },
                condition.text("message"),
                condition.text("error"),
            ),
        };
        vec![cells::name(component), status.into(), message.into(), error.into()]
    }),
    ..Kind::VIRTUAL
};
