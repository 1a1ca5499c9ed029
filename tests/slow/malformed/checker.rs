//! What came back, counted, and what should never have come.
//!
//! Job: [`Tally`]; [`problem_of`] says what is wrong with an answer.
//! Invariant: whatever is counted as a violation is shown with the number of its bundle, which
//! repeats it, and its bytes are kept in a file.
//! Must never: stop the campaign; the table is the result.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::client::Answer;
use crate::support::say;
use crate::support::strict_http1::{Asked, next_answer};

/// Violations that are kept; more are only counted.
const SHOWN: usize = 20;
const SHOWN_BYTES: usize = 1500;

/// How a connection went on after a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It goes on.
    Kept,
    /// The server ended it.
    Closed,
    /// The server waits for more, and the campaign went away.
    Left,
    /// The campaign closed its own half, and the server ended the rest.
    HalfClosed,
    /// The campaign waited, and the server ended it within its limits.
    WaitedOut,
    /// The campaign waited, and an answer came.
    Late,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) statuses: BTreeMap<(&'static str, u16), u64>,
    pub(crate) ends: BTreeMap<(&'static str, End), u64>,
    pub(crate) violations: Vec<String>,
    pub(crate) violation_count: u64,
}

impl Tally {
    pub(crate) fn end(&mut self, kind: &'static str, end: End) {
        *self.ends.entry((kind, end)).or_default() += 1;
    }

    pub(crate) fn status(&mut self, kind: &'static str, status: u16) {
        *self.statuses.entry((kind, status)).or_default() += 1;
    }

    /// Something that must not happen, with what had been sent.
    pub(crate) fn violation(&mut self, bundle: u64, what: &str, sent: &[u8]) {
        self.violation_count += 1;
        if self.violations.len() >= SHOWN {
            return;
        }
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("malformed-{bundle}"));
        let place = fs::write(&kept, sent)
            .map_or_else(|error| error.to_string(), |()| kept.display().to_string());
        let shown = sent[..sent.len().min(SHOWN_BYTES)].escape_ascii();
        let line =
            format!("bundle {bundle}: {what}\n  sent {} bytes, in {place}: {shown}", sent.len());
        say(&format!("VIOLATION {line}"));
        self.violations.push(line);
    }

    /// Takes whole answers off the front of what was read, and judges them.
    pub(crate) fn take_answers(
        &mut self,
        kind: &'static str,
        read: &mut Vec<u8>,
        sent: &Sent<'_>,
        ended: bool,
    ) -> Taken {
        let taken = take_answers(read, sent, ended);
        for status in &taken.statuses {
            self.status(kind, *status);
        }
        for problem in &taken.problems {
            self.violation(sent.bundle, problem, sent.bytes);
        }
        taken
    }
}

/// Whole answers off the front of what was read.
fn take_answers(read: &mut Vec<u8>, sent: &Sent<'_>, ended: bool) -> Taken {
    let asked = Asked { maybe_head: sent.maybe_head(), ended };
    let mut taken = Taken::default();
    while !read.is_empty() {
        match next_answer(read, asked) {
            Ok(None) if !ended => break,
            Ok(None) => {
                taken.problems.push(format!("a cut answer: {}", read.escape_ascii()));
                read.clear();
            }
            Err(what) => {
                taken.problems.push(format!("{what}: {}", read.escape_ascii()));
                read.clear();
            }
            Ok(Some((answer, length))) => {
                read.drain(..length);
                taken.statuses.push(answer.status);
                if let Some(what) = problem_of(&answer) {
                    taken.problems.push(format!(
                        "{what}: {} {:?} {}",
                        answer.status,
                        answer.headers,
                        answer.text()
                    ));
                }
                taken.is_answered |= answer.status >= 200;
                taken.has_probe |=
                    !sent.probe.is_empty() && answer.header("x-request-id") == sent.probe;
            }
        }
    }
    taken
}

/// The answers that came, and whether one was the probe's.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    statuses: Vec<u16>,
    problems: Vec<String>,
    pub(crate) is_answered: bool,
    pub(crate) has_probe: bool,
}

/// What was sent before something came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) bundle: u64,
    pub(crate) bytes: &'a [u8],
    /// The id of the request that was sent last; its answer shows that everything before it was
    /// read. Empty for none.
    pub(crate) probe: &'a str,
}

impl Sent<'_> {
    fn maybe_head(&self) -> bool {
        self.bytes.windows(4).any(|window| window == b"HEAD")
    }
}

/// What is wrong with an answer that is well-formed HTTP.
fn problem_of(answer: &Answer) -> Option<&'static str> {
    match answer.status {
        100 => return None,
        500.. => return Some("a fault of the server"),
        200 | 201 | 204 | 304 | 308 | 400..=499 => {}
        _ => return Some("a status that the server does not have"),
    }
    // The files of /docs hold nothing of anybody; a browser may keep them, and asks each time.
    let is_file = answer.header("etag").len() == 34 && matches!(answer.status, 200 | 304);
    let stored = if is_file { "no-cache" } else { "no-store" };
    if answer.header("x-request-id").is_empty() || answer.header("cache-control") != stored {
        return Some("an answer without its id, or that may be stored");
    }
    if answer.status < 400 || answer.body.is_empty() {
        return None;
    }
    let document = answer.json();
    let error = &document["errors"][0];
    let status = error["status"].as_str().and_then(|status| status.parse().ok());
    let is_whole = status == Some(answer.status)
        && ["code", "title", "detail", "id"].iter().all(|member| error[member].is_string())
        && document["errors"].as_array().is_some_and(|errors| errors.len() == 1)
        && answer.header("content-type") == "application/vnd.api+json";
    (!is_whole).then_some("an error without its document")
}

/// Of the judge itself: each kind of wrong answer is a violation, and a right one is not.
#[test]
fn wrong_answers_are_violations() {
    let whole = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nx-request-id: a\r\ncache-control: no-store\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    };
    let json = "content-type: application/vnd.api+json\r\n";
    let error = r#"{"errors":[{"id":"a","status":"404","code":"c","title":"t","detail":"d"}]}"#;
    let right = [
        whole("200 OK", "", "alive"),
        whole("404 Not Found", json, error),
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", whole("200 OK", "", "alive")),
        whole("200 OK", "", "alive").repeat(3),
        whole("304 Not Modified", &format!("etag: \"{}\"\r\n", "0".repeat(32)), "")
            .replace("no-store", "no-cache")
            .replace("content-length: 0\r\n", ""),
        String::new(),
    ];
    let wrong = [
        whole("500 Internal Server Error", json, error),
        whole("503 Service Unavailable", json, error),
        whole("400 Bad Request", json, error),
        whole("404 Not Found", "", error),
        whole("404 Not Found", json, "{}"),
        whole("299 Odd", "", ""),
        whole("200 OK", "content-length: 5\r\n", "alive"),
        whole("200 OK", "X: a\nY: b\r\n", "alive"),
        whole("200 OK", "", "alive") + "!",
        whole("200 OK", "", "alive").replace("alive", "aliv"),
        whole("200 OK", "", "alive").replace("no-store", "public"),
        whole("200 OK", "", "alive").replace("no-store", "no-cache"),
        whole("200 OK", "etag: \"1-2\"\r\n", "alive").replace("no-store", "no-cache"),
        whole("200 OK", "", "alive").replace(" OK", ""),
        "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
        "<html>".to_owned(),
    ];
    for (answers, violations) in
        right.iter().map(|text| (text, false)).chain(wrong.iter().map(|text| (text, true)))
    {
        let sent = Sent { bundle: 0, bytes: b"GET", probe: "" };
        let taken = take_answers(&mut answers.clone().into_bytes(), &sent, true);
        assert_eq!(!taken.problems.is_empty(), violations, "{answers:?}: {:#?}", taken.problems);
    }
}
