//! Log lines: formatted where they arise, written to standard error by a thread of their own.
//!
//! Nothing that serves waits for a log to be written. Lines wait in a buffer of bounded size; those that find it full are
//! dropped and counted, and the count is logged once there is room.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::json_lines::JsonLines;
use crate::config::{Log, LogFormat};

/// Most bytes that may wait.
const CAPACITY: usize = 4 << 20;
/// Of the room for them, what is kept while there are few.
const KEPT: usize = 64 << 10;
/// Lines that come within this time of others are written together with those that follow.
const GATHER: Duration = Duration::from_millis(5);
/// How long the end of the program waits for a standard error that takes nothing.
const FLUSH: Duration = Duration::from_secs(2);

/// Logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one; a configuration that was checked has none such.
    #[error("the log filter cannot be used: {0}; write one such as \"info\"")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// No thread could be started.
    #[error("no thread for logs could be started: {0}; raise the limit of threads")]
    Thread(#[from] io::Error),
    /// This process has a subscriber.
    #[error("logs are set up already: {0}; start them once")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes logs while it lives. Dropping it writes what waits, for two seconds at most.
#[derive(Debug)]
pub struct Logs {
    buffer: Arc<Buffer>,
    done: Receiver<()>,
}

impl Logs {
    /// Sends this process's events to standard error from now on.
    pub fn start(config: &Log) -> Result<Self, LogError> {
        let filter = EnvFilter::builder().parse(&config.filter)?;
        let is_terminal = io::stderr().is_terminal();
        let is_human = match config.format {
            LogFormat::Auto => is_terminal,
            LogFormat::Human => true,
            LogFormat::Json => false,
        };
        let (logs, lines) = Self::to(io::stderr(), CAPACITY, is_human)?;
        let events = fmt().with_env_filter(filter).with_writer(lines);
        if is_human {
            events.with_ansi(is_terminal).finish().try_init()?;
        } else {
            events.event_format(JsonLines).finish().try_init()?;
        }
        Ok(logs)
    }

    /// A writing thread before `output`, and what lines are handed to.
    fn to(
        output: impl Write + Send + 'static,
        capacity: usize,
        is_human: bool,
    ) -> io::Result<(Self, Lines)> {
        let buffer = Arc::new(Buffer {
            capacity,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (finished, done) = sync_channel(1);
        let source = Arc::clone(&buffer);
        thread::Builder::new()
            .name("layby-logs".to_owned())
            .spawn(move || {
                write_all(&source, output, is_human);
                // Nobody may be waiting any more.
                let _ = finished.send(());
            })?;
        let lines = Lines(Arc::clone(&buffer));
        Ok((Self { buffer, done }, lines))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.buffer.state.lock().is_closed = true;
        self.buffer.changed.notify_one();
        // Late or gone: there is nobody left to tell.
        let _ = self.done.recv_timeout(FLUSH);
    }
}

/// Lines that wait for the writing thread.
#[derive(Debug)]
struct Buffer {
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines dropped that no line has told of yet.
    lost: u64,
    /// Whether the writing thread waits for a line.
    is_awaited: bool,
    is_closed: bool,
}

impl Buffer {
    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.is_closed || state.lines.len().saturating_add(line.len()) > self.capacity {
            state.lost += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        // Once is enough: waking a thread costs more than a line.
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
    }

    /// Exchanges `written`, which is empty, for the lines that wait, as soon as there are any; gives the number of lost
    /// ones, `None` at the end.
    fn take(&self, written: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state.lock();
        while state.lines.is_empty() && state.lost == 0 {
            if state.is_closed {
                return None;
            }
            state.is_awaited = true;
            self.changed.wait(&mut state);
        }
        state.is_awaited = false;
        std::mem::swap(&mut state.lines, written);
        Some(std::mem::take(&mut state.lost))
    }

    /// Lets lines come together, unless they are the last.
    fn gather(&self) {
        let mut state = self.state.lock();
        if !state.is_closed {
            self.changed.wait_for(&mut state, GATHER);
        }
    }
}

fn write_all(buffer: &Buffer, mut output: impl Write, is_human: bool) {
    let mut lines = Vec::new();
    while let Some(lost) = buffer.take(&mut lines) {
        // With standard error gone there is nowhere to say so.
        let _ = output.write_all(&lines);
        if lost > 0 {
            let _ = writeln!(output, "{}", lost_line(lost, is_human));
        }
        let _ = output.flush();
        lines.clear();
        lines.shrink_to(KEPT);
        buffer.gather();
    }
}

/// Made by hand: an event would end in the buffer that was just full.
fn lost_line(lost: u64, is_human: bool) -> String {
    let now = jiff::Timestamp::now();
    if is_human {
        format!("{now}  WARN layby::telemetry::logs: log lines were lost count={lost}")
    } else {
        format!(
            r#"{{"timestamp":"{now}","level":"WARN","message":"log lines were lost","count":{lost},"target":"layby::telemetry::logs"}}"#
        )
    }
}

/// Hands each event's line to the buffer.
#[derive(Debug, Clone)]
struct Lines(Arc<Buffer>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// One call is one line: that is how tracing-subscriber writes.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that takes a line only when it is told to, and keeps what it was given.
    #[derive(Clone)]
    struct Slow {
        gate: Arc<Mutex<Receiver<()>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error: the gate was taken away, and all may pass.
            let _ = self.gate.lock().recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().clone()).expect("text")
    }

    #[test]
    fn lines_beyond_the_capacity_are_dropped_and_counted_and_nobody_waits() {
        let (open, gate) = sync_channel(100);
        let slow = Slow {
            gate: Arc::new(Mutex::new(gate)),
            written: Arc::default(),
        };
        let written = Arc::clone(&slow.written);
        let (logs, lines) = Logs::to(slow, 100, false).expect("thread");
        (&lines).write_all(b"first\n").expect("taken");
        // The writing thread has it, and waits at the gate from now on.
        while !logs.buffer.state.lock().lines.is_empty() {
            thread::yield_now();
        }
        for _ in 0..50 {
            (&lines).write_all(b"0123456789").expect("taken");
        }
        assert!(logs.buffer.state.lock().lines.len() <= 100);
        drop(open);
        drop(logs);
        let text = text(&written);
        assert!(text.starts_with("first\n0123456789"), "{text}");
        assert_eq!(text.matches("0123456789").count(), 10);
        let last: serde_json::Value =
            serde_json::from_str(text.rsplit("0123456789").next().expect("line")).expect("json");
        assert_eq!(last["count"], 40);
    }

    #[test]
    fn dropping_the_logs_writes_what_waits() {
        let slow = Slow {
            gate: Arc::new(Mutex::new(sync_channel(0).1)),
            written: Arc::default(),
        };
        let written = Arc::clone(&slow.written);
        let (logs, lines) = Logs::to(slow, CAPACITY, true).expect("thread");
        for number in 0..1000 {
            writeln!(&lines, "{number}").expect("taken");
        }
        drop(logs);
        assert!(text(&written).ends_with("999\n"));
    }
}
