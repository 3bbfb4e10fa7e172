//! `[log]`: what is written to standard error.

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
