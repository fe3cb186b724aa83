//! Fields that an apply would take from others, and the 409 that says so.

use super::set::Set;
use crate::status::{Cause, Details, Status};

/// One manager's fields that an apply would change.
pub(super) struct Conflict {
    /// `"kubectl" using apps/v1`.
    pub(super) manager: String,
    pub(super) set: Set,
}

/// Drops the fields that may be taken.
pub(super) fn without(mut conflicts: Vec<Conflict>, allowed: &Set) -> Vec<Conflict> {
    for conflict in &mut conflicts {
        conflict.set.subtract(allowed);
    }
    conflicts.retain(|conflict| !conflict.set.is_empty());
    conflicts
}

/// The 409 with a cause for each field.
pub(super) fn status(conflicts: &[Conflict]) -> Status {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in conflicts {
        lines.push(format!("conflicts with {}:", conflict.manager));
        for field in conflict.set.paths() {
            lines.push(format!("- {field}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {}", conflict.manager),
                field,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        all => format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n")),
    };
    let mut status = Status::failure(409, "Conflict", message);
    status.details = Some(Box::new(Details { causes, ..Details::default() }));
    status
}
