//! `[log]`: what is written to standard error.

use tracing_subscriber::EnvFilter;

use super::document::Section;
use super::faults::Wrong;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// Look of a line.
    pub format: LogFormat,
    /// Filter in tracing's syntax, such as `info` or `info,layby::flight=debug`.
    pub filter: String,
}

impl Log {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let log = Self {
            format: section.text("format", format).unwrap_or(LogFormat::Auto),
            filter: section
                .text("filter", filter)
                .unwrap_or_else(|| "info".to_owned()),
        };
        section.close();
        log
    }
}

pub(super) fn format(text: &str) -> Result<LogFormat, Wrong> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(
            format!("{text:?} is not a log format"),
            r#"write "auto", "human" or "json""#,
        )),
    }
}

pub(super) fn filter(text: &str) -> Result<String, Wrong> {
    match EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            format!("{text:?} is not a log filter"),
            r#"write a level or a list of them by part, such as "info" or "info,layby::upstream=debug""#,
        )),
    }
}
