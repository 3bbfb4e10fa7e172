//! `[[warm]]`: what a server brings by itself.

use std::time::Duration;

use super::*;
use crate::support::eventually;

#[tokio::test]
async fn a_server_brings_images_by_itself_again_and_again() {
    let table = r#"images = ["org/app:v1", "org/none"]"#;
    let set = |setup: Setup| setup.set("[warm]", table).set("[warm]", r#"every = "1h""#);
    let scene = Scene::with(set).await;
    image(1).push(&scene.fake, APP, "v1");
    for (run, seed) in [(1_u8, 1), (2, 2)] {
        image(seed).push(&scene.fake, APP, "v1");
        let asked = scene.fake.record().all().len();
        assert_eq!(
            asked,
            scene.fake.record().all().len(),
            "not before its time"
        );
        // The first is a little after the start, and none longer than its interval after the one before.
        scene.layby.later(Duration::from_secs(3600)).await;
        eventually("a run", || async {
            let runs = scene.layby.metric("warm_runs_total", "failed").await;
            (runs >= f64::from(run)).then_some(())
        })
        .await;
        let here = scene.layby.committed();
        assert!(image(seed).blobs().all(|blob| here.contains(blob.digest())));
    }
    for (metric, outcome, count) in [
        ("warm_images_total", "fetched", 2.0),
        ("warm_images_total", "failed", 2.0),
        ("warm_running", "", 0.0),
    ] {
        let counted = scene.layby.metric(metric, outcome).await;
        assert!(
            (counted - count).abs() < 0.1,
            "{metric} {outcome}: {counted}"
        );
    }
}
