//! The strictest reader of HTTP/1.1 answers: for tests in which a malformed answer is a finding.
//!
//! Job: [`next_answer`] cuts the first answer off what came back.
//! Invariant: it takes what the server has reason to send and nothing else: a status line, header
//! lines of tokens and visible text, one length and exactly that body.
//! Must never: guess. What it cannot read is an error that says where.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::client::Answer;

/// Above any head that the server sends: a redirect carries the path that was asked for, of 64 KiB
/// at most and each byte as three.
const MOST_HEAD_BYTES: usize = 256 << 10;
const START: &[u8] = b"HTTP/1.";

/// What is known about the requests that were answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// One of them may be a HEAD, whose answer has a length and no body.
    pub(crate) maybe_head: bool,
    /// Nothing more will come.
    pub(crate) ended: bool,
}

/// The first answer in `bytes` and its length, or nothing when the rest of it has not come yet.
pub(crate) fn next_answer(bytes: &[u8], asked: Asked) -> Result<Option<(Answer, usize)>, String> {
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Err("bytes that do not begin an answer".to_owned());
    }
    let Some(end) = bytes.windows(4).take(MOST_HEAD_BYTES).position(|window| window == b"\r\n\r\n")
    else {
        return if bytes.len() > MOST_HEAD_BYTES {
            Err("a head without an end".to_owned())
        } else {
            Ok(None)
        };
    };
    let (status, headers) = head(&bytes[..end])?;
    let rest = &bytes[end + 4..];
    let Some(length) = body_length(status, &headers)? else {
        return Ok(Some((Answer { status, headers, body: Bytes::new() }, end + 4)));
    };
    if asked.maybe_head && (rest.starts_with(START) || (rest.is_empty() && asked.ended)) {
        return Ok(Some((Answer { status, headers, body: Bytes::new() }, end + 4)));
    }
    if rest.len() < length {
        return Ok(None);
    }
    let body = Bytes::copy_from_slice(&rest[..length]);
    Ok(Some((Answer { status, headers, body }, end + 4 + length)))
}

fn head(bytes: &[u8]) -> Result<(u16, HeaderMap), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a head that is not ASCII".to_owned())?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = status(line).ok_or_else(|| format!("not a status line: {line:?}"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) =
            line.split_once(": ").ok_or_else(|| format!("not a header: {line:?}"))?;
        let is_token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_visible = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) if is_token && is_visible => drop(headers.append(name, value)),
            _ => return Err(format!("not a header: {line:?}")),
        }
    }
    Ok((status, headers))
}

/// `HTTP/1.1 200 OK`: version, three digits, a reason.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let (digits, reason) = rest.split_once(' ')?;
    let is_status = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_reason =
        !reason.is_empty() && reason.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (is_status && has_reason).then(|| digits.parse().ok()).flatten()
}

/// The length of the body; nothing where the status allows none.
fn body_length(status: u16, headers: &HeaderMap) -> Result<Option<usize>, String> {
    if headers.contains_key("transfer-encoding") {
        return Err("an answer in chunks, though its length was known".to_owned());
    }
    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
    match (status, &lengths[..]) {
        (100..=199 | 204 | 304, []) => Ok(None),
        (200.., [length]) if status != 204 && status != 304 => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            length.map(Some).ok_or_else(|| "a length that is no number".to_owned())
        }
        _ => Err(format!("{} lengths for a status of {status}", lengths.len())),
    }
}
