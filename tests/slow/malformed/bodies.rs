//! What is done to a request's body, to the lines that say how long it is, and to the bytes of the
//! whole.
//!
//! Job: [`CHANGES`] on the draft, and [`spoil`] on its bytes.
//! Invariant: as in `heads.rs`.
//! Must never: smuggle anything but an increment of the campaign's own tenants.

use super::draft::{Draft, Framing, Media};
use super::heads::Change;
use super::templates::{CANARY, Cast};
use crate::support::Random;

pub(crate) const CHANGES: &[Change] = &[
    (6, chunks),
    (6, lengths),
    (5, smuggled),
    (5, nested),
    (8, numbers),
    (8, doubled_member),
    (4, no_text),
    (8, wrong_types),
    (6, other_media),
    (1, over_long),
    (4, cut),
];

/// The bytes of the whole, in a few places.
pub(crate) fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.between(1, 4) {
        let at = random.index(bytes.len().max(1)).min(bytes.len());
        let most = (bytes.len() - at).min(16);
        match random.index(6) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.index(8),
            2 if at < bytes.len() => bytes[at] = random.byte(),
            3 => drop(bytes.drain(at..at + random.index(most + 1))),
            4 => {
                let piece = bytes[at..at + random.index(most + 1)].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let piece: Vec<u8> = (0..random.between(1, 6)).map(|_| random.byte()).collect();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Chunked, with something wrong in it, or merely odd.
fn chunks(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let body = draft.content();
    let hex = format!("{:x}", body.len());
    let (size, after): (String, &[u8]) = match random.index(17) {
        0 => (format!("-{hex}"), b"\r\n0\r\n\r\n"),
        1 => (format!("+{hex}"), b"\r\n0\r\n\r\n"),
        2 => (format!("0x{hex}"), b"\r\n0\r\n\r\n"),
        3 => (format!("{}{hex}", "0".repeat(1 << random.between(0, 14))), b"\r\n0\r\n\r\n"),
        4 => ("ffffffffffffffff".to_owned(), b"\r\n0\r\n\r\n"),
        5 => ("fffffffffffffffff".to_owned(), b"\r\n0\r\n\r\n"),
        6 => ("zz".to_owned(), b"\r\n0\r\n\r\n"),
        7 => (String::new(), b"\r\n0\r\n\r\n"),
        8 => {
            (format!("{hex};ext=\"{}\"", "e".repeat(1 << random.between(0, 15))), b"\r\n0\r\n\r\n")
        }
        9 => (format!("{hex} "), b"\r\n0\r\n\r\n"),
        // No break behind the data; no last chunk; a cut one; LF alone; trailers, many of them, and
        // lying ones.
        10 => (hex, b"0\r\n\r\n"),
        11 => (hex, b"\r\n"),
        12 => (hex, b"\r\n0\r\n"),
        13 => (hex, b"\n0\n\n"),
        14 => (hex, b"\r\n0\r\nContent-Length: 5\r\nAuthorization: Bearer x\r\nno colon\r\n\r\n"),
        15 => (hex, b"\r\n0\r\nX: \0\xff\r\n\r\n"),
        _ => (format!("{:x}", body.len() + random.index(9)), b"\r\n0\r\n\r\n"),
    };
    let wire = [size.as_bytes(), b"\r\n", &body, after].concat();
    draft.framing = Framing::As(vec![b"Transfer-Encoding: chunked".to_vec()], wire);
}

/// A length that is not the body's.
fn lengths(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let body = draft.content();
    let right = body.len();
    let lines = match random.index(16) {
        0 => vec![format!("Content-Length: {}", right + random.index(5000) + 1)],
        1 => vec![format!("Content-Length: {}", random.index(right + 1))],
        2 => vec!["Content-Length: -1".to_owned()],
        3 => vec![format!("Content-Length: +{right}")],
        4 => vec![format!("Content-Length: 0x{right:x}")],
        5 => vec![format!("Content-Length: {right}, {right}")],
        6 => vec![format!("Content-Length: {right}"), format!("Content-Length: {right}")],
        7 => vec![format!("Content-Length: {right}"), format!("Content-Length: {}", right + 1)],
        8 => vec!["Content-Length: 99999999999999999999999".to_owned()],
        9 => vec!["Content-Length: 18446744073709551615".to_owned()],
        10 => vec!["Content-Length: 9223372036854775808".to_owned()],
        11 => vec!["Content-Length:".to_owned()],
        12 => vec![format!("Content-Length: {right}.0")],
        13 => vec![format!("Content-Length: 00000{right}")],
        14 => vec![format!("Content-Length: {right} {right}")],
        _ => Vec::new(),
    };
    draft.framing = Framing::As(lines.into_iter().map(String::into_bytes).collect(), body);
}

/// Two readings of where the body ends, with an increment in the difference.
fn smuggled(draft: &mut Draft, cast: &Cast, random: &mut Random) {
    let account = &cast.lasting[random.index(cast.lasting.len())];
    let hidden = format!(
        "PUT /api/v1/integer/increment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        account.key
    );
    let coding = random.pick(&[
        "Transfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "transfer-encoding: CHUNKED",
        "X: y\nTransfer-Encoding: chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer_Encoding: chunked",
    ]);
    let body = format!("0\r\n\r\n{hidden}");
    let length = random.pick(&[0, 4, 5, body.len()]);
    let length = format!("Content-Length: {length}");
    let lines = match random.index(4) {
        0 => vec![coding.to_owned()],
        1 => vec![length],
        2 => vec![length, coding.to_owned()],
        _ => vec![coding.to_owned(), length],
    };
    draft.framing =
        Framing::As(lines.into_iter().map(String::into_bytes).collect(), body.into_bytes());
}

fn nested(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let depth = 1_usize << random.between(1, 13);
    let (open, close) = random.pick(&[
        ("[", "]"),
        ("{\"a\":", "}"),
        ("[{\"data\":", "}]"),
        ("{\"data\":{\"attributes\":", "}}"),
    ]);
    let closed = if random.one_in(3) { 0 } else { depth };
    let deep = format!("{}1{}", open.repeat(depth), close.repeat(closed));
    as_json(draft, random);
    if random.one_in(2) || draft.fields.is_empty() {
        draft.body = Some(deep.into_bytes());
    } else {
        let at = random.index(draft.fields.len());
        draft.fields[at].1 = deep;
    }
}

fn numbers(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let digits = "9".repeat(1 << random.between(1, 12));
    let number = match random.index(4) {
        0 => digits,
        1 => format!("1e{digits}"),
        2 => format!("0.{digits}"),
        _ => random
            .pick(&[
                "0",
                "-0",
                "-1",
                "007",
                "1.0",
                "1e3",
                "1E400",
                "-1e-400",
                "9007199254740992",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551615",
                "18446744073709551616",
                "+1",
                "0x10",
                "NaN",
                "Infinity",
                "1_000",
                ".5",
                "5.",
                "--1",
                "1e",
                "\u{661}",
            ])
            .to_owned(),
    };
    let value = if random.one_in(3) { format!("\"{number}\"") } else { number };
    if draft.fields.is_empty() || random.one_in(6) {
        draft.fields.push((random.pick(&["value", "count", "start", "max"]).to_owned(), value));
    } else {
        let at = random.index(draft.fields.len());
        draft.fields[at].1 = value;
    }
}

fn doubled_member(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let first = draft
        .fields
        .iter()
        .find(|field| !field.0.is_empty())
        .cloned()
        .unwrap_or_else(|| ("value".to_owned(), "5".to_owned()));
    let name = first.0.clone();
    match random.index(5) {
        0 => draft.fields.push(first),
        1 => draft.fields.push((name, "6".to_owned())),
        2 => draft.fields.push((format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]), first.1)),
        3 => draft.fields.push((name.to_ascii_uppercase(), first.1)),
        _ => {
            as_json(draft, random);
            let pair = format!("\"data\":{{\"attributes\":{{\"{name}\":{}}}}}", first.1);
            draft.body = Some(format!("{{{pair},{pair}}}").into_bytes());
        }
    }
}

/// What is no UTF-8, no JSON, or no form.
fn no_text(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let mut body = draft.content();
    let piece: &[u8] = random.pick(&[
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\0",
        b"\xef\xbb\xbf",
        b"\\ud800",
        b"\\u00",
        b"\"",
        b"}",
        b",",
        b"%ff",
        b"%",
        b"&=",
        b"\x1f\x8b\x08\0",
        b"never-log-this-c4n4ry",
    ]);
    let at = random.index(body.len() + 1);
    body.splice(at..at, piece.iter().copied());
    draft.body = Some(body);
    if draft.take_header("Content-Type").is_none() || random.one_in(2) {
        as_json(draft, random);
    } else {
        draft.header("Content-Type", Draft::content_type(draft.media));
    }
}

fn wrong_types(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let long = format!("\"{}\"", CANARY.repeat(1 << random.between(0, 9)));
    let value = random.pick(&[
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "[1,2]",
        "{\"value\":1}",
        "\"\\u0000\"",
        "\" 5 \"",
        "\"\\ud83d\"",
        &long,
    ]);
    match draft.fields.len() {
        0 => draft.fields.push((
            random.pick(&["value", "count", "__proto__", "", "no such parameter"]).to_owned(),
            value.to_owned(),
        )),
        count => draft.fields[random.index(count)].1 = value.to_owned(),
    }
    as_json(draft, random);
}

/// The body is one thing and is called another, or nothing, or two things.
fn other_media(draft: &mut Draft, _: &Cast, random: &mut Random) {
    draft.take_header("Content-Type");
    for _ in 0..random.index(3) {
        let media = random.pick(&[Media::Form, Media::Json, Media::JsonApi, Media::Query]);
        draft.header("Content-Type", Draft::content_type(media));
    }
    if random.one_in(4) {
        draft.body = Some(
            random
                .pick(&[
                    "[]",
                    "null",
                    "7",
                    "{\"data\":[]}",
                    "{\"data\":{\"attributes\":7}}",
                    "{}{}",
                    "{",
                    "",
                ])
                .into(),
        );
    }
}

fn over_long(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let length = random.pick(&[4095, 4096, 4097, 5000, 20_000, 70_000, 1 << 20]);
    draft.body = Some(vec![random.pick(b"x& {9"); length]);
    if random.one_in(3) {
        // Announced, and then not sent.
        draft.framing =
            Framing::As(vec![format!("Content-Length: {length}").into_bytes()], b"{".to_vec());
    }
}

/// The rest never comes.
fn cut(draft: &mut Draft, _: &Cast, random: &mut Random) {
    draft.cut_at = Some(random.next());
}

fn as_json(draft: &mut Draft, random: &mut Random) {
    draft.media = random.pick(&[Media::Json, Media::JsonApi]);
    draft.take_header("Content-Type");
    draft.header("Content-Type", Draft::content_type(draft.media));
}
