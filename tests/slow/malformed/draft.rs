//! A request that can still be changed in parts, and its bytes.
//!
//! Job: [`Draft`], and [`Draft::bytes`].
//! Invariant: a draft that nobody changed is a valid request.
//! Must never: mend what a change broke.

use std::fmt::Write;

/// How the parameters travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Form,
    Json,
    JsonApi,
    Query,
}

/// How the body's end is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// These header lines, and these bytes behind the head.
    As(Vec<Vec<u8>>, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) method: Vec<u8>,
    pub(crate) path: Vec<u8>,
    /// Without the question mark; empty for none.
    pub(crate) query: Vec<u8>,
    pub(crate) version: Vec<u8>,
    /// Whole lines, without their ends.
    pub(crate) headers: Vec<Vec<u8>>,
    /// Names, and values as JSON writes them.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) media: Media,
    /// In place of what the fields would make.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) framing: Framing,
    pub(crate) line_end: &'static [u8],
    /// Only so much of it is sent.
    pub(crate) cut_at: Option<u64>,
}

impl Draft {
    pub(crate) fn header(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.headers.push([name.as_bytes(), b": ", value.as_ref()].concat());
    }

    /// Removes the headers of this name; the last value of them.
    pub(crate) fn take_header(&mut self, name: &str) -> Option<Vec<u8>> {
        let is_it = |line: &[u8]| {
            line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
                && line.get(name.len()) == Some(&b':')
        };
        let last = self
            .headers
            .iter()
            .rev()
            .find(|line| is_it(line))
            .map(|line| line[name.len() + 1..].to_vec());
        self.headers.retain(|line| !is_it(line));
        last
    }

    /// The body before it is framed.
    pub(crate) fn content(&self) -> Vec<u8> {
        match &self.body {
            Some(body) => body.clone(),
            None if self.fields.is_empty() => Vec::new(),
            None => match self.media {
                Media::Form => form(&self.fields).into_bytes(),
                Media::Json => json(&self.fields).into_bytes(),
                Media::JsonApi => format!(
                    r#"{{"data":{{"type":"user_integer","id":"1","attributes":{}}},"jsonapi":{{"version":"1.0"}}}}"#,
                    json(&self.fields)
                )
                .into_bytes(),
                Media::Query => Vec::new(),
            },
        }
    }

    /// The header that goes with the body.
    pub(crate) fn content_type(media: Media) -> &'static str {
        match media {
            Media::Form => "application/x-www-form-urlencoded",
            Media::Json => "application/json",
            Media::JsonApi => "application/vnd.api+json",
            Media::Query => "text/plain",
        }
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut query = self.query.clone();
        if self.media == Media::Query && self.body.is_none() && !self.fields.is_empty() {
            query.extend_from_slice(if query.is_empty() { b"" } else { b"&" });
            query.extend_from_slice(form(&self.fields).as_bytes());
        }
        let end = self.line_end;
        let mark: &[u8] = if query.is_empty() { b"" } else { b"?" };
        let mut bytes =
            [&self.method, &b" "[..], &self.path, mark, &query, b" ", &self.version, end].concat();
        for line in &self.headers {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(end);
        }
        let content = self.content();
        let (lines, body) = match &self.framing {
            Framing::Length if content.is_empty() && self.method == b"GET" => (Vec::new(), content),
            Framing::Length => {
                (vec![format!("Content-Length: {}", content.len()).into_bytes()], content)
            }
            Framing::Chunked => (vec![b"Transfer-Encoding: chunked".to_vec()], chunked(&content)),
            Framing::As(lines, body) => (lines.clone(), body.clone()),
        };
        for line in lines {
            bytes.extend_from_slice(&line);
            bytes.extend_from_slice(end);
        }
        bytes.extend_from_slice(end);
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// The content in two chunks, or one.
fn chunked(content: &[u8]) -> Vec<u8> {
    let (first, second) = content.split_at(content.len() / 2);
    let mut bytes = Vec::new();
    for chunk in [first, second].into_iter().filter(|chunk| !chunk.is_empty()) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn json(fields: &[(String, String)]) -> String {
    let members: Vec<_> =
        fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Texts lose their quotes; whatever is no letter or digit is written with a percent sign.
fn form(fields: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let value =
            value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        text.push_str(if text.is_empty() { "" } else { "&" });
        encode(name, &mut text);
        text.push('=');
        encode(value, &mut text);
    }
    text
}

fn encode(raw: &str, text: &mut String) {
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
}
