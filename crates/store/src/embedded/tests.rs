use super::*;
use crate::conformance;

async fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(dir.path(), Options::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    let dirs = Mutex::new(Vec::new());
    conformance::all(async || {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        dirs.lock().push(dir);
        store
    })
    .await;
}
