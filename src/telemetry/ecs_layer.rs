//! The log formatter: one event becomes one line, as Elastic Common Schema (ECS) JSON or as text.
//!
//! Job: a tracing layer that formats an event into a buffer of the thread and passes it to the sink
//! in one write. It runs for each request, so it allocates nothing once a thread has its buffers,
//! and it formats the date once a second.
//! Invariant: one event is one line, whatever the values contain. Control characters and the
//! separators that some parsers take for a newline are escaped in both styles; no key occurs twice;
//! a JSON line parses.
//! Must never: log, panic, or wait. An event inside an event (a `Debug` that logs) gets a line of
//! its own.
//!
//! A field keeps the name that the caller gave it: dotted names, not nested objects, express the
//! schema (`http.request.method`). Fields of third-party crates become `labels.…`. Spans are
//! ignored: every event has all its fields.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::io::Write;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::escape::{Escaped, escape};

/// The style of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    Text { colour: bool },
}

/// The constant members that follow the message in every JSON line.
const JSON_SERVICE: &str = concat!(
    r#","ecs.version":"8.11.0","service.name":"odometer","service.version":""#,
    env!("CARGO_PKG_VERSION"),
    '"'
);
/// Keys that the formatter writes itself; a field of an event with such a name is left out.
const RESERVED: [&str; 7] = [
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "service.name",
    "service.version",
    "log.logger",
];
/// A line buffer with a larger capacity is freed after its event.
const MAX_RETAINED_BYTES: usize = 16 * 1024;

/// The layer that writes each event to a sink as one line.
pub(super) struct EcsLayer<W> {
    style: Style,
    sink: W,
}

impl<W> EcsLayer<W> {
    pub(super) fn new(style: Style, sink: W) -> Self {
        Self { style, sink }
    }
}

/// The buffers that a thread reuses from event to event.
#[derive(Default)]
struct Scratch {
    line: String,
    /// The keys that the line has so far.
    keys: Vec<&'static str>,
    clock: TimestampCache,
}

thread_local! {
    /// Taken out while an event is formatted, so that an event inside it finds empty buffers
    /// instead of a borrow error.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl<S: Subscriber, W: Write + Clone + 'static> Layer<S> for EcsLayer<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A thread that is ending has no thread-local left; its last events use new buffers.
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        scratch.line.clear();
        scratch.keys.clear();
        scratch.format(self.style, event, since_epoch());
        // The queue counts what it drops, so its result carries no information.
        let _ = self.sink.clone().write_all(scratch.line.as_bytes());
        if scratch.line.capacity() > MAX_RETAINED_BYTES {
            scratch.line = String::new();
        }
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
}

impl Scratch {
    fn format(&mut self, style: Style, event: &Event<'_>, now: Duration) {
        let Self { line, keys, clock } = self;
        let seconds = clock.text(now.as_secs());
        let metadata = event.metadata();
        match style {
            Style::Json => {
                let level = level_name(*metadata.level());
                let micros = now.subsec_micros();
                let _ = write!(
                    line,
                    r#"{{"@timestamp":"{seconds}.{micros:06}Z","log.level":"{level}","message":""#
                );
                event.record(&mut MessageVisitor::new(line, style));
                line.push('"');
                line.push_str(JSON_SERVICE);
            }
            Style::Text { colour } => {
                let (dim, plain) = if colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
                let tint = if colour { level_tint(*metadata.level()) } else { "" };
                let millis = now.subsec_millis();
                let _ = write!(
                    line,
                    "{dim}{seconds}.{millis:03}Z{plain} {tint}{:>5}{plain} ",
                    metadata.level()
                );
                event.record(&mut MessageVisitor::new(line, style));
            }
        }
        // Records of the `log` crate arrive through tracing-log under one target; a field has
        // their own.
        let bridged = metadata.target() == "log";
        let is_third_party = !metadata.target().starts_with("odometer");
        let mut fields = FieldVisitor { line, keys, style, bridged, is_third_party };
        event.record(&mut fields);
        // Text lines show the target of third-party crates only.
        if style == Style::Json || is_third_party {
            fields.string(Name::plain("log.logger"), metadata.target());
        }
        line.push_str(if style == Style::Json { "}\n" } else { "\n" });
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn level_tint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line carries wall time")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The formatted timestamp down to the second, formatted again only when the second changes.
#[derive(Default)]
struct TimestampCache {
    second: u64,
    text: String,
}

impl TimestampCache {
    fn text(&mut self, second: u64) -> &str {
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let seconds = i64::try_from(second).unwrap_or(i64::MAX);
            let at =
                OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            let month = u8::from(month);
            let _ = write!(
                self.text,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
            );
        }
        &self.text
    }
}

/// First pass over an event: writes the message and nothing else.
struct MessageVisitor<'a> {
    line: &'a mut String,
    style: Style,
    written: bool,
}

impl<'a> MessageVisitor<'a> {
    fn new(line: &'a mut String, style: Style) -> Self {
        Self { line, style, written: false }
    }
}

impl Visit for MessageVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" && !self.written {
            self.written = true;
            let quotes = self.style == Style::Json;
            let _ = write!(Escaped { line: self.line, quotes }, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Second pass over an event: writes every other field, with its type.
struct FieldVisitor<'a> {
    line: &'a mut String,
    keys: &'a mut Vec<&'static str>,
    style: Style,
    /// The event is a record of the `log` crate.
    bridged: bool,
    is_third_party: bool,
}

/// The name of a field as the line has it: a prefix and the name.
#[derive(Clone, Copy)]
struct Name {
    before: &'static str,
    name: &'static str,
}

impl Name {
    const fn plain(name: &'static str) -> Self {
        Self { before: "", name }
    }
}

impl FieldVisitor<'_> {
    /// The name that a field has in the line; `None` if it is left out.
    fn name(&self, field: &Field) -> Option<Name> {
        let name = field.name();
        if self.bridged {
            match name {
                "log.target" => return Some(Name::plain("log.logger")),
                "log.file" => return Some(Name::plain("log.origin.file.name")),
                "log.line" => return Some(Name::plain("log.origin.file.line")),
                "log.module_path" => return None,
                _ => {}
            }
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        // The field names of libraries are not the schema's; ECS has `labels` for such fields.
        let before = if self.is_third_party && self.style == Style::Json { "labels." } else { "" };
        (!RESERVED.contains(&name)).then_some(Name { before, name })
    }

    /// Writes the key; returns false if the line has it already.
    fn key(&mut self, Name { before: prefix, name }: Name) -> bool {
        if self.keys.contains(&name) {
            return false;
        }
        self.keys.push(name);
        let (before, after) = match self.style {
            Style::Json => (",\"", "\":"),
            Style::Text { colour: false } => (" ", "="),
            Style::Text { colour: true } => (" \x1b[2m", "=\x1b[0m"),
        };
        self.line.push_str(before);
        self.line.push_str(prefix);
        escape(self.line, name, true);
        self.line.push_str(after);
        true
    }

    /// Writes a number or a boolean.
    fn unquoted(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if let Some(name) = self.name(field)
            && self.key(name)
        {
            let _ = self.line.write_fmt(value);
        }
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if let Some(name) = self.name(field) {
            self.quoted(name, |escaped| escaped.write_fmt(value));
        }
    }

    fn string(&mut self, name: Name, value: &str) {
        self.quoted(name, |escaped| escaped.write_str(value));
    }

    fn quoted(&mut self, name: Name, write: impl FnOnce(&mut Escaped<'_>) -> fmt::Result) {
        if !self.key(name) {
            return;
        }
        let json = self.style == Style::Json;
        if json {
            self.line.push('"');
        }
        let start = self.line.len();
        // If a value fails to format itself, the line keeps what it has written so far.
        let _ = write(&mut Escaped { line: self.line, quotes: true });
        let written = &self.line[start..];
        if json {
            self.line.push('"');
        } else if written.is_empty() || written.contains([' ', '=', '"', '\\']) {
            self.line.insert(start, '"');
            self.line.push('"');
        }
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(name) = self.name(field) {
            self.string(name, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.unquoted(field, format_args!("{value}"));
    }

    /// Bypasses `std::fmt`, which takes several times as long.
    fn record_u64(&mut self, field: &Field, value: u64) {
        if let Some(name) = self.name(field)
            && self.key(name)
        {
            push_decimal(self.line, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.unquoted(field, format_args!("{value}"));
    }

    /// `Duration::as_nanos` is u128 and fits 64 bits; a number that does not is written as a
    /// string, since JSON parsers would round it.
    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.text(field, format_args!("{value}")),
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field, format_args!("{value}")),
        }
    }

    /// JSON has neither infinity nor NaN; they are written as null.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() || self.style != Style::Json {
            self.unquoted(field, format_args!("{value:?}"));
        } else {
            self.unquoted(field, format_args!("null"));
        }
    }

    /// Writes an error as its message and the messages of its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let Some(name) = self.name(field) else { return };
        self.quoted(name, |escaped| {
            write!(escaped, "{value}")?;
            let mut cause = value.source();
            while let Some(error) = cause {
                write!(escaped, ": {error}")?;
                cause = error.source();
            }
            Ok(())
        });
    }
}

/// Appends a number in decimal.
fn push_decimal(line: &mut String, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend(digits[first..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
#[path = "ecs_layer_tests.rs"]
mod tests;
