//! Tests of `ecs_layer.rs`, in a file of their own because of its length.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(style: Style, log: impl FnOnce()) -> String {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::registry().with(EcsLayer::new(style, kept.clone()));
    tracing::subscriber::with_default(subscriber, log);
    let bytes = kept.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Parses one line and checks the invariants of every line.
fn json(log: impl FnOnce()) -> Map<String, Value> {
    let line = logged(Style::Json, log);
    assert!(line.ends_with('\n'), "{line}");
    let body = &line[..line.len() - 1];
    assert!(
        !body.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
        "{body:?}"
    );
    let object: Map<String, Value> = serde_json::from_str(body).unwrap();
    for key in object.keys() {
        let key = format!("{}:", Value::from(key.as_str()));
        assert_eq!(body.matches(&key).count(), 1, "{key} in {body}");
    }
    object
}

fn text(log: impl FnOnce()) -> String {
    let line = logged(Style::Text { colour: false }, log);
    line.split_once("Z ").unwrap().1.to_owned()
}

#[test]
fn a_line_opens_with_the_fixed_keys_in_order() {
    let line = logged(Style::Json, || tracing::warn!(first = 1, "hello"));
    let rest = line.strip_prefix(r#"{"@timestamp":""#).unwrap();
    let (time, rest) = rest.split_at("2025-11-23T22:31:05.123456Z".len());
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        rest,
        format!(
            "\",\"log.level\":\"warn\",\"message\":\"hello\",\"ecs.version\":\"8.11.0\",\
             \"service.name\":\"odometer\",\
             \"service.version\":\"{version}\",\"first\":1,\"log.logger\":\"{}\"}}\n",
            module_path!()
        )
    );
}

#[test]
fn nasty_strings_come_back_as_they_were() {
    let all: String = (0..=0x3000).chain(0x1f5f0..0x1f650).filter_map(char::from_u32).collect();
    for nasty in [
        "",
        "\"",
        "\\",
        "\\\"",
        "a\nb\r\n",
        "\0",
        "\u{2028}\u{2029}\u{85}\u{7f}",
        "\u{1b}[31m",
        "🦀",
        &all,
    ] {
        let line =
            json(|| tracing::info!(text = nasty, shown = %nasty, debugged = ?nasty, "{nasty}"));
        assert_eq!(line["message"], nasty);
        assert_eq!(line["text"], nasty);
        assert_eq!(line["shown"], nasty);
        assert_eq!(line["debugged"], format!("{nasty:?}"));
    }
}

#[test]
fn fields_keep_their_types() {
    #[derive(Debug)]
    struct Nested;
    let line = json(|| {
        tracing::info!(
            "http.response.status_code" = 200u16,
            "event.duration" = Duration::from_millis(5).as_nanos(),
            negative = -7,
            largest = u64::MAX,
            beyond = u128::MAX,
            beneath = i128::MIN,
            half = 0.5,
            tiny = 1e-300,
            huge = 1e300,
            nan = f64::NAN,
            infinite = f64::INFINITY,
            yes = true,
            nested = ?Some(Nested),
            absent = Option::<u64>::None,
            r#type = "raw",
            "a \"quoted\" key" = 1,
            "message"
        );
    });
    let expected: Value = serde_json::from_str(
        r#"{"http.response.status_code":200, "event.duration":5000000, "negative":-7,
        "largest":18446744073709551615,
        "beyond":"340282366920938463463374607431768211455",
        "beneath":"-170141183460469231731687303715884105728",
        "half":0.5, "tiny":1e-300, "huge":1e300, "nan":null, "infinite":null, "yes":true,
        "nested":"Some(Nested)",
        "type":"raw", "a \"quoted\" key":1}"#,
    )
    .unwrap();
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}");
    }
    assert!(!line.contains_key("absent"));
}

#[test]
fn no_key_occurs_twice() {
    let line = json(|| {
        tracing::info!(
            "service.name" = "imposter",
            "@timestamp" = 1,
            "log.logger" = "imposter",
            same = 1,
            "same" = 2,
            "once"
        );
    });
    assert_eq!((&line["service.name"], &line["same"]), (&"odometer".into(), &1.into()));
    assert_eq!(line["log.logger"], module_path!());
    assert_eq!(json(|| tracing::info!(only = 1))["message"], "");
    assert_eq!(
        json(|| tracing::info!(target: "sled::tree", message = "named"))["message"],
        "named"
    );
}

#[test]
fn an_error_brings_its_causes() {
    #[derive(Debug)]
    struct Outer(io::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("append failed")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
    let error = Outer(io::Error::other("disk\nfull"));
    let line = json(|| tracing::error!("error.message" = &error as &dyn Error, "commit failed"));
    assert_eq!(line["error.message"], "append failed: disk\nfull");
}

#[test]
fn records_of_the_log_crate_name_their_own_target() {
    let line = json(|| {
        let (target, file) = ("sled::pagecache", "src/pagecache.rs");
        tracing::info!(
            target: "log",
            { log.target = target, log.module_path = target, log.file = file, log.line = 12u32 },
            "opened"
        );
    });
    assert_eq!(line["log.logger"], "sled::pagecache");
    assert_eq!(line["log.origin.file.line"], 12);
    assert!(!line.contains_key("log.target") && !line.contains_key("log.module_path"));
}

#[test]
fn what_libraries_call_their_fields_are_labels() {
    let line = json(|| {
        tracing::info!(
            target: "h2::codec",
            frame = ?[1, 2], sz = 7, "@timestamp" = "imposter", message = "sent"
        );
    });
    assert_eq!((&line["labels.frame"], &line["labels.sz"]), (&"[1, 2]".into(), &7.into()));
    assert_eq!((&line["message"], &line["log.logger"]), (&"sent".into(), &"h2::codec".into()));
    assert!(
        !line.contains_key("frame") && !line.keys().any(|key| key.ends_with("imposter")),
        "{line:?}"
    );
}

#[test]
fn text_is_one_readable_line() {
    let line = text(|| {
        tracing::info!(
            "http.request.method" = "GET",
            status = 200,
            path = "a b",
            empty = "",
            "served \"it\""
        );
    });
    assert_eq!(
        line,
        " INFO served \"it\" http.request.method=GET status=200 path=\"a b\" empty=\"\"\n"
    );
    let line =
        text(|| tracing::error!(target: "hyper::proto", why = "x=\"1\"", "two\nlines \u{1b}[31m"));
    assert_eq!(line, "ERROR two\\nlines \\u001b[31m why=\"x=\\\"1\\\"\" log.logger=hyper::proto\n");
    let coloured = logged(Style::Text { colour: true }, || tracing::warn!(n = 1, "careful"));
    assert!(coloured.contains("\x1b[33m WARN\x1b[0m careful \x1b[2mn=\x1b[0m1\n"), "{coloured:?}");
}

/// tracing drops an inner event under a subscriber of one thread, as here; so the value does to the
/// buffers what that event would do.
#[test]
fn an_event_within_an_event_leaves_the_outer_line_alone() {
    struct Chatty;
    impl Debug for Chatty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut scratch = SCRATCH.take();
            assert!(
                scratch.line.is_empty() && scratch.keys.is_empty(),
                "the outer buffers are taken"
            );
            scratch.line.push_str("inner");
            scratch.keys.push("after");
            SCRATCH.set(scratch);
            f.write_str("said")
        }
    }
    let line = json(|| tracing::info!(value = ?Chatty, after = 1, "outer"));
    assert_eq!(
        (&line["message"], &line["value"], &line["after"]),
        (&"outer".into(), &"said".into(), &1.into())
    );
}

#[test]
fn the_clock_knows_the_calendar() {
    let mut clock = TimestampCache::default();
    assert_eq!(clock.text(0), "1970-01-01T00:00:00");
    assert_eq!(clock.text(951_827_696), "2000-02-29T12:34:56");
    assert_eq!(clock.text(951_827_697), "2000-02-29T12:34:57");
}
