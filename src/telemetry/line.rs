//! A log line as one JSON object.
//!
//! That of tracing-subscriber is the same but for spans, of which we have none; it goes through serde piece
//! by piece, which takes as many instructions as to decide a review at a glance.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events as JSON, one a line: the time, the level, the fields, and the part of the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut writer)?;
        writer.write_str(r#"","level":""#)?;
        writer.write_str(metadata.level().as_str())?;
        writer.write_char('"')?;
        let mut fields = Fields { writer, target: None, written: Ok(()) };
        event.record(&mut fields);
        let Fields { mut writer, target, written } = fields;
        written?;
        writer.write_str(r#","target":"#)?;
        string(&mut writer, target.as_deref().unwrap_or_else(|| metadata.target()))?;
        writer.write_str("}\n")
    }
}

/// Writes fields as they come.
struct Fields<'w> {
    writer: Writer<'w>,
    /// The part of the program that a record of the `log` crate names.
    target: Option<String>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn entry(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        // Where in its source a record of the `log` crate was made is not for people who run this.
        if self.written.is_ok() && !field.name().starts_with("log.") {
            self.written = self.key(field.name()).and_then(|()| value(&mut self.writer));
        }
    }

    fn key(&mut self, name: &str) -> fmt::Result {
        self.writer.write_char(',')?;
        // `r#type` is called `type`.
        string(&mut self.writer, name.strip_prefix("r#").unwrap_or(name))?;
        self.writer.write_char(':')
    }
}

impl Visit for Fields<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.entry(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.entry(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.entry(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // There is no JSON for infinity; then it is `null`.
        self.entry(field, |writer| write!(writer, "{}", serde_json::Value::from(value)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        }
        self.entry(field, |writer| string(writer, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.entry(field, |writer| string(writer, &format!("{value:?}")));
    }
}

/// A JSON string.
fn string(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        writer.write_char('"')?;
        writer.write_str(text)?;
        return writer.write_char('"');
    }
    // Nothing but text, so that there is always a JSON form.
    writer.write_str(&serde_json::to_string(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of some events, as tracing-subscriber writes them, or as we do.
    fn lines(ours: bool, events: fn()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone());
        if ours {
            tracing::subscriber::with_default(log.event_format(JsonLine).finish(), events);
        } else {
            tracing::subscriber::with_default(log.json().flatten_event(true).finish(), events);
        }
        let bytes = written.0.lock().unwrap().clone();
        let lines = String::from_utf8(bytes).unwrap();
        lines
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let timestamp = line["timestamp"].take();
                assert!(timestamp.as_str().is_some_and(|time| time.ends_with('Z')), "{timestamp}");
                line
            })
            .collect()
    }

    fn events() {
        let error = io::Error::other("a \"cause\"\nof two lines");
        tracing::info!(
            text = "größe \u{1}\\",
            yes = true,
            less = -1_i64,
            more = u64::MAX,
            half = 0.5,
            never = f64::NAN,
            none = None::<&str>,
            %error,
            debug = ?["a"],
            "a message with \"{}\"",
            "quotes"
        );
        tracing::warn!(target: "elsewhere", r#type = "x", "again");
        tracing::error!("no fields");
    }

    #[test]
    fn lines_are_those_of_tracing_subscriber() {
        let ours = lines(true, events);
        assert_eq!(ours, lines(false, events));
        assert_eq!(ours[2]["message"], json!("no fields"));
    }
}
