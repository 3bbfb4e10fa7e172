//! Events as lines of JSON: an object each, the time first and where it arose last.
//!
//! Of what a small answer costs, its line is a good part. So fields go into the line as they come, without a tree, a map or a
//! text of their own between. Spans are left out: only libraries have any, below `info`.

use std::fmt::{self, Write};

use jiff::Timestamp;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonLines;

static TIMES: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let of_log = event.normalized_metadata();
        let metadata = of_log.as_ref().unwrap_or_else(|| event.metadata());
        line.write_str("{\"timestamp\":\"")?;
        TIMES
            .print_timestamp(&Timestamp::now(), StdFmtWrite(&mut line))
            .map_err(|_| fmt::Error)?;
        line.write_str("\",\"level\":\"")?;
        line.write_str(metadata.level().as_str())?;
        line.write_char('"')?;
        let mut fields = Fields {
            line: &mut line,
            written: Ok(()),
        };
        event.record(&mut fields);
        fields.written?;
        line.write_str(",\"target\":")?;
        quote(&mut line, metadata.target())?;
        line.write_str("}\n")
    }
}

/// Writes each field behind those before it.
struct Fields<'a, 'w> {
    line: &'a mut Writer<'w>,
    written: fmt::Result,
}

impl Fields<'_, '_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let name = field.name();
        // Where an event of the `log` crate arose: its target, which the metadata has, is enough.
        if self.written.is_err() || name.starts_with("log.") {
            return;
        }
        self.written = self.name(name).and_then(|()| value(self.line));
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        self.line.write_char(',')?;
        quote(self.line, name.strip_prefix("r#").unwrap_or(name))?;
        self.line.write_char(':')
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, |line| {
            if value.is_finite() {
                write!(line, "{value:?}")
            } else {
                line.write_str("null")
            }
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.field(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |line| {
            line.write_str(if value { "true" } else { "false" })
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, |line| quote(line, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, |line| {
            line.write_char('"')?;
            write!(Escaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

/// Writes text as a string of JSON.
fn quote(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    line.write_char('"')?;
    Escaped(line).write_str(text)?;
    line.write_char('"')
}

/// Writes text as it stands between the quotes of a string (RFC 8259, section 7).
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            // Those are ASCII, so characters begin before and behind them.
            self.0.write_str(&text[plain..at])?;
            plain = at + 1;
            match byte {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                _ => write!(self.0, "\\u{byte:04x}")?,
            }
        }
        self.0.write_str(&text[plain..])
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What `log` leads to.
    fn text_of(log: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let output = Output(Arc::clone(&written));
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || output.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(written.lock().clone()).unwrap()
    }

    /// The same, line by line.
    fn lines_of(log: impl FnOnce()) -> Vec<Value> {
        let text = text_of(log);
        assert!(text.ends_with('\n'), "{text}");
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    #[derive(Clone)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_kind_of_value_is_what_it_is_in_json() {
        let before = Timestamp::now();
        let lines = lines_of(|| {
            tracing::info!(
                text = "a",
                shown = %1.5,
                debugged = ?Some("x"),
                signed = -3_i64,
                unsigned = u64::MAX,
                wide = u128::MAX,
                wide_signed = i128::MIN,
                yes = true,
                whole = 15.0,
                part = 0.014,
                nothing = f64::NAN,
                left_out = None::<u64>,
                r#type = "t",
                "of {}", 7
            );
            tracing::warn!(target: "elsewhere", error = &io::Error::other("e") as &dyn std::error::Error, "w");
        });
        let [mut first, mut second] = <[Value; 2]>::try_from(lines).unwrap();
        for line in [&mut first, &mut second] {
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            let text = time.as_str().unwrap();
            assert_eq!(text.len(), "2026-11-27T23:59:32.431102Z".len(), "{text}");
            let time: Timestamp = text.parse().unwrap();
            assert!(
                (before..=Timestamp::now())
                    .contains(&(time + jiff::SignedDuration::from_micros(1)))
            );
        }
        let expected = json!({
            "level": "INFO",
            "message": "of 7",
            "text": "a",
            "shown": "1.5",
            "debugged": "Some(\"x\")",
            "signed": -3,
            "unsigned": u64::MAX,
            "wide": 3.402_823_669_209_385e38,
            "wide_signed": -1.701_411_834_604_692_3e38,
            "yes": true,
            "whole": 15.0,
            "part": 0.014,
            "nothing": null,
            "type": "t",
            "target": module_path!(),
        });
        assert_eq!(first, expected);
        let expected =
            json!({ "level": "WARN", "message": "w", "error": "e", "target": "elsewhere" });
        assert_eq!(second, expected);
    }

    #[test]
    fn the_time_comes_first_and_the_message_next() {
        let text = text_of(|| tracing::info!(a = 1, "m"));
        let rest = text.strip_prefix("{\"timestamp\":\"").unwrap();
        let (_, rest) = rest.split_once('"').unwrap();
        let expected = r#","level":"INFO","message":"m","a":1,"target":"layby::telemetry::json_lines::tests"}"#;
        assert_eq!(rest.trim_end(), expected);
    }

    #[test]
    fn an_event_of_the_log_crate_is_told_by_its_own_target_and_level() {
        use tracing_log::log::{Level, Record};
        let lines = lines_of(|| {
            let mut record = Record::builder();
            record.level(Level::Warn).target("a_library");
            let record = record.line(Some(7)).args(format_args!("oh")).build();
            tracing_log::format_trace(&record).unwrap();
        });
        let mut line = lines.into_iter().next().unwrap();
        line.as_object_mut().unwrap().remove("timestamp");
        let expected = json!({ "level": "WARN", "message": "oh", "target": "a_library" });
        assert_eq!(line, expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_no_text_ends_its_line(text in any::<String>(), more in any::<String>()) {
            let lines = lines_of(|| tracing::info!(given = text.as_str(), shown = %more, debugged = ?text, "{text}"));
            prop_assert_eq!(lines.len(), 1);
            prop_assert_eq!(&lines[0]["given"], &json!(text));
            prop_assert_eq!(&lines[0]["shown"], &json!(more));
            prop_assert_eq!(&lines[0]["debugged"], &json!(format!("{text:?}")));
            prop_assert_eq!(&lines[0]["message"], &json!(text));
        }
    }
}
