//! `layby stats`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::AdminArgs;
use super::table::{count, minute, percent, size, table};
use crate::proxy::admin::model::{Statistics, UpstreamStatistics};

/// Shows what the cache holds and what it was good for, in all and for each upstream.
#[derive(Debug, clap::Args)]
pub struct Stats {
    #[command(flatten)]
    admin: AdminArgs,
}

impl Stats {
    /// Exits with 0.
    pub fn run(self) -> ExitCode {
        self.admin.run(async |administration, output| {
            output.answer(&administration.statistics().await?, shown)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn shown(statistics: &Statistics) -> String {
    let limit = statistics
        .max_size_bytes
        .map_or_else(|| "no limit".to_owned(), size);
    let counting = if statistics.counting {
        ", still counting"
    } else {
        ""
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} of {limit} in {}{counting}; requests and bytes since {}\n",
        size(statistics.size_bytes),
        count(statistics.blobs, "blob"),
        minute(statistics.since)
    );
    let rows: Vec<Vec<String>> = statistics
        .upstreams
        .iter()
        .chain([&statistics.total])
        .map(row)
        .collect();
    let head = [
        "UPSTREAM",
        "REPOSITORIES",
        "TAGS",
        "BLOBS",
        "SIZE",
        "REQUESTS",
        "HITS",
        "SERVED",
        "BYTE HITS",
        "FETCHED",
        "SAVED",
    ];
    text.push_str(&table(&head, &rows, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    text
}

fn row(one: &UpstreamStatistics) -> Vec<String> {
    let name = if one.upstream.is_empty() {
        "all"
    } else {
        &one.upstream
    };
    vec![
        name.to_owned(),
        one.repositories.to_string(),
        one.tags.to_string(),
        one.blobs.to_string(),
        size(one.size_bytes),
        one.requests.to_string(),
        percent(one.request_hit_ratio),
        size(one.served_bytes),
        percent(one.byte_hit_ratio),
        size(one.upstream_bytes),
        size(one.saved_bytes),
    ]
}
