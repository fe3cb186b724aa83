//! PodTemplate: a template at rest.

use crate::kinds::{
    access::Members,
    builtin::{Kind, Shape},
    cells, pod_spec,
};
use crate::validation::pod::{self, warnings};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { generation: &["template"], ..Shape::PLAIN },
    default: |object| pod_spec::default_template(object.member("template")),
    validate: |errors, object, _| pod::template(errors, &object.get("template")),
    warnings: |new, old| warnings::of_workload(new, old, "template", false),
    row: Some(|object, _| {
        let template = &object["template"];
        let [names, images] = cells::containers(&template["spec"]);
        vec![cells::name(object), names, images, cells::labels(&template["metadata"]["labels"])]
    }),
    ..Kind::PLAIN
};
