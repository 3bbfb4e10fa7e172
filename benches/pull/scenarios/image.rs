//! A whole image by skopeo, from a registry that is some way off.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use std::sync::Arc;

use super::present;
use crate::Result;
use crate::bed::Bed;
use crate::content::{Content, MANIFEST, REPOSITORY};
use crate::origin::Pace;
use crate::peers::{Contender, Layby, direct, distribution};
use crate::report::{Report, Unit};
use crate::rounds::{interleaved, series};

const SCENARIO: &str = "image_pull";

/// What the registry needs for each answer, and its bytes per second.
const DELAY: Duration = Duration::from_millis(20);
const RATE: f64 = 100e6;

/// Sizes of the layers, in parts of the cold blob of other scenarios.
const LAYERS: [u64; 6] = [4, 16, 64, 256, 1024, 1024];

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let Some(skopeo) = &bed.peers.skopeo else {
        report.note(format!("{SCENARIO}: left out, there is no skopeo"));
        return Ok(());
    };
    let contenders = present([
        Some(Layby::default().start(bed)?),
        Some(direct(bed)),
        distribution(bed)?,
    ]);
    let tags = (0..bed.scale.pairs).map(|number| publish(bed, number));
    let tags: Vec<String> = tags.collect();
    let samples = interleaved(bed.scale.pairs, &contenders, |round, contender| {
        bed.settle()?;
        bed.origin.pace(Pace::Together(RATE));
        bed.origin.delay(DELAY);
        let cold = pull(bed, skopeo, contender, &tags[round]);
        let warm = pull(bed, skopeo, contender, &tags[round]);
        bed.origin.delay(Duration::ZERO);
        Ok((cold?, warm?))
    })?;
    let cold = series(&samples, |(cold, _)| cold.as_secs_f64());
    report.add(SCENARIO, "cold", Unit::Seconds, &cold, &[]);
    let warm = series(&samples, |(_, warm)| warm.as_secs_f64());
    report.add(SCENARIO, "warm", Unit::Seconds, &warm, &[]);
    Ok(())
}

/// An image of its own for each number; its tag.
fn publish(bed: &Bed, number: usize) -> String {
    let layers: Vec<Arc<Content>> = LAYERS
        .iter()
        .map(|part| bed.blob((bed.scale.cold / part).max(1_000)))
        .collect();
    let describe = |content: &Content, media_type: &str| json!({ "mediaType": media_type, "size": content.len(), "digest": content.digest });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.digest.clone()).collect::<Vec<_>>(),
        },
    });
    let config = Content::bytes(config.to_string().into_bytes(), "application/octet-stream");
    let config = Arc::new(config);
    bed.origin.put(config.blob_path(), &config);
    let layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(&config, "application/vnd.docker.container.image.v1+json"),
        "layers": layers.iter().map(|layer| describe(layer, layer_type)).collect::<Vec<_>>(),
    });
    let manifest = Arc::new(Content::bytes(manifest.to_string().into_bytes(), MANIFEST));
    let tag = format!("v{number}");
    bed.origin
        .put(manifest.manifest_path(Some(&tag)), &manifest);
    bed.origin.put(manifest.manifest_path(None), &manifest);
    tag
}

/// skopeo compares every digest itself.
fn pull(bed: &Bed, skopeo: &Path, contender: &Contender, tag: &str) -> Result<Duration> {
    let folder = bed.folder("image-")?;
    let address = contender.target().address;
    let started = Instant::now();
    let output = Command::new(skopeo)
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{address}/{REPOSITORY}:{tag}"))
        .arg(format!("dir:{}", folder.path().display()))
        .stdin(Stdio::null())
        .output()?;
    let time = started.elapsed();
    if output.status.success() {
        return Ok(time);
    }
    Err(format!("skopeo: {}", String::from_utf8_lossy(&output.stderr)).into())
}
