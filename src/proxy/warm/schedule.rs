//! `[[warm]]`: runs that nobody asks for, one after the other, each table for itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::config;

use super::model::{WarmEvent, WarmReport, WarmedImage};
use super::run::Order;
use super::{JOBS, Warmer};

/// From the start to the first run at least: clients that waited for the start come first.
const FIRST: Duration = Duration::from_secs(5);
/// Those of many servers that are started at once are spread over so long.
const SPREAD: Duration = Duration::from_mins(1);
/// Images of a run whose failures are logged; of more, only the number.
const MOST_LOGGED: usize = 10;

/// Has these be brought as long as the warmer's tasks go on.
pub(in crate::proxy) fn start(warmer: &Arc<Warmer>, tables: &[config::Warm]) {
    if warmer.ctx.offline && !tables.is_empty() {
        warn!("offline is set, so nothing of [[warm]] is brought");
        return;
    }
    for (number, table) in (1_usize..).zip(tables.to_vec()) {
        let warmer = Arc::clone(warmer);
        let tasks = warmer.ctx.tasks.clone();
        tasks.spawn_until_stop(async move { again_and_again(&warmer, number, table).await });
    }
}

async fn again_and_again(warmer: &Arc<Warmer>, number: usize, table: config::Warm) {
    let every = table.every;
    let order = Order {
        images: warmer.unlike(table.images),
        platforms: table.platforms,
        referrers: table.referrers,
        dry_run: false,
        jobs: usize::try_from(JOBS).unwrap_or(1),
    };
    sleep(FIRST + SPREAD.min(every / 10).mul_f64(fastrand::f64())).await;
    loop {
        let next = Instant::now() + every;
        run(warmer, number, order.clone()).await;
        // One that takes longer than that is followed by the next at once, and never overtaken.
        sleep_until(next).await;
    }
}

async fn run(warmer: &Arc<Warmer>, number: usize, order: Order) {
    let Ok(turn) = Arc::clone(&warmer.runs).acquire_owned().await else {
        return;
    };
    let mut events = warmer.start(order, turn);
    let mut failed = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            WarmEvent::Ended(image) if !image.problems.is_empty() && failed.len() < MOST_LOGGED => {
                failed.push(in_short(&image));
            }
            WarmEvent::Lost { image, .. } if failed.len() < MOST_LOGGED => {
                failed.push(format!(
                    "{image}: evicted again, there is not room for everything"
                ));
            }
            WarmEvent::Done(report) => tell(number, &report, &failed),
            _ => {}
        }
    }
}

fn in_short(image: &WarmedImage) -> String {
    let first = image.problems.first();
    let why = first.map(|problem| format!("{}: {}", problem.part, problem.message));
    format!("{}: {}", image.image, why.unwrap_or_default())
}

fn tell(number: usize, report: &WarmReport, failed: &[String]) {
    let WarmReport {
        images,
        fetched,
        here,
        failed: not_here,
        fetched_bytes,
        elapsed_ms,
        ..
    } = *report;
    if not_here == 0 {
        info!(
            table = number,
            images, fetched, here, fetched_bytes, elapsed_ms, "images are warm"
        );
    } else {
        let why = failed.join("; ");
        warn!(
            table = number,
            images,
            fetched,
            here,
            failed = not_here,
            fetched_bytes,
            elapsed_ms,
            why,
            "not all images are warm"
        );
    }
}
