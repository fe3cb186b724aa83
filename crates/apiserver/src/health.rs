//! `/livez`, `/readyz` and `/healthz`: named checks, all of them or one at a time.

use std::sync::Arc;

use api::status::Status;
use parking_lot::RwLock;

use crate::pipeline::{
    answer::{self, Answer},
    call::Call,
};

/// One named check: `None` is fine, otherwise what is wrong.
type Probe = Arc<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Clone)]
struct Check {
    name: String,
    /// Counts for liveness too, not only for readiness.
    live: bool,
    probe: Probe,
}

/// The server's health checks.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Check>>,
}

impl Health {
    /// Adds a check of readiness; other components of the process may add theirs.
    pub fn add_ready(&self, name: &str, probe: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.add(name, false, probe);
    }

    /// Adds a check of liveness and readiness.
    pub fn add_live(&self, name: &str, probe: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.add(name, true, probe);
    }

    fn add(&self, name: &str, live: bool, probe: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.checks.write().push(Check { name: name.into(), live, probe: Arc::new(probe) });
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.run(false).iter().all(|(_, failure)| failure.is_none())
    }

    fn run(&self, live_only: bool) -> Vec<(String, Option<String>)> {
        let checks: Vec<Check> = self.checks.read().iter().filter(|check| check.live || !live_only).cloned().collect();
        let mut results = vec![("ping".to_string(), None)];
        results.extend(checks.into_iter().map(|check| (check.name, (check.probe)())));
        results
    }
}

/// Answers a health path without trailing slash.
pub(crate) async fn handle(call: &Call, path: &str) -> Answer {
    let mut parts = path.split('/').skip(1);
    let endpoint = parts.next().unwrap_or_default();
    let wanted = parts.next();
    if parts.next().is_some() {
        return Err(Status::no_such_path());
    }
    let mut results = call.server.health().run(endpoint == "livez");
    let store = call.server.store().revision().await.err().map(|error| error.to_string());
    results.insert(1, ("etcd".into(), store));
    if endpoint == "readyz" {
        let draining = call.server.draining().is_cancelled();
        results.push(("shutdown".into(), draining.then(|| "process is shutting down".into())));
    }
    if let Some(wanted) = wanted {
        let found = results.into_iter().find(|(name, _)| name == wanted).ok_or_else(Status::no_such_path)?;
        return Ok(match found.1 {
            None => answer::text(200, "ok"),
            Some(why) => answer::text(500, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut text = String::new();
    let mut failed = false;
    for (name, failure) in &results {
        if excluded.contains(&name.as_str()) {
            text += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        match failure {
            None => text += &format!("[+]{name} ok\n"),
            Some(why) => {
                failed = true;
                tracing::debug!(check = name, why, "health check failed");
                text += &format!("[-]{name} failed: reason withheld\n");
            }
        }
    }
    if failed {
        return Ok(answer::text(500, format!("{text}{endpoint} check failed\n")));
    }
    if call.query.get("verbose").is_some() {
        return Ok(answer::text(200, format!("{text}{endpoint} check passed\n")));
    }
    Ok(answer::text(200, "ok"))
}
