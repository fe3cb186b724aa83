//! What libcontainer says about a failure beside its error: the cause is often only in its log events, and those come
//! from processes that it forks. All of them write to one file without a name; the launcher reads it at the end.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{Read, Seek, Write as _};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest diagnosis that is passed on.
const TEXT_MAX: u64 = 4096;

/// Where error events of this process and its children go.
pub(super) struct Diagnosis(File);

impl Diagnosis {
    /// Starts listening; `None` where the kernel has no such files, and the bare error must do.
    pub(super) fn start() -> Option<Diagnosis> {
        let file = File::from(memfd_create(c"diagnosis", MFdFlags::MFD_CLOEXEC).ok()?);
        let writer = file.try_clone().ok()?;
        tracing::subscriber::set_global_default(Errors(writer)).ok()?;
        Some(Diagnosis(file))
    }

    /// The first event is the deepest cause; later ones repeat it on the way up.
    pub(super) fn first(mut self) -> Option<String> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        self.0.take(TEXT_MAX).read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    }
}

struct Errors(File);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        // One write, so that lines of two processes do not mix. There is nobody to tell of a failure.
        let _ = (&self.0).write_all(format!("{}\n", line.0.replace('\n', " ")).as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// `message, field=value, ...`
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let comma = if self.0.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{comma}{value:?}"),
            name => write!(self.0, "{comma}{name}={value:?}"),
        };
    }
}
