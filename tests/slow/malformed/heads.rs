//! What is done to a request's head: line, path, headers, credentials.
//!
//! Job: [`CHANGES`].
//! Invariant: each change depends on the draft and the generator alone, and leaves a request of a
//! few hundred KiB at most.
//! Must never: be sure that its request will be refused; some of them stay valid.

use super::draft::{Draft, Framing};
use super::templates::{CANARY, Cast, basic};
use crate::support::Random;

/// One kind of change, and how often it is drawn.
pub(crate) type Change = (u64, fn(&mut Draft, &Cast, &mut Random));

pub(crate) const CHANGES: &[Change] = &[
    (3, method),
    (3, version),
    (6, path),
    (3, query),
    (3, host),
    (6, credentials),
    (3, doubled_header),
    (5, odd_header),
    (3, meaning_header),
    (1, many_headers),
    (1, over_long),
    (3, line_ends),
    (2, control_characters),
];

fn method(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let name = draft.method.clone();
    draft.method = match random.index(10) {
        0 => name.to_ascii_lowercase(),
        1 => Vec::new(),
        2 => vec![b'A'; 1 << random.between(4, 17)],
        3 => [&name[..], b"\t"].concat(),
        4 => [b" ", &name[..]].concat(),
        5 => [&name[..], b"\0"].concat(),
        6 => "GÉT".as_bytes().to_vec(),
        7 => b"CONNECT".to_vec(),
        _ => random
            .pick(&[
                &b"PATCH"[..],
                b"TRACE",
                b"OPTIONS",
                b"PRI",
                b"BREW",
                b"!#$%&'*+-.^_`|~",
                b"(GET)",
                b"POST",
            ])
            .to_vec(),
    };
    if draft.method == b"CONNECT" && random.one_in(2) {
        draft.path = b"localhost:443".to_vec();
    }
}

fn version(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let versions: [&[u8]; 16] = [
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/3",
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/01.1",
        b"HTTP/1.1.1",
        b"HTTP/11",
        b"HTP/1.1",
        b"",
        b"HTTP",
        b"HTTP/",
        b"HTTP/1.1\tx",
        b"HTTPS/1.1",
    ];
    draft.version = random.pick(&versions).to_vec();
}

fn path(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let old = draft.path.clone();
    let at = random.index(old.len() + 1);
    let piece: &[u8] = random.pick(&[
        &b"%2F"[..],
        b"%2f..%2f",
        b"%00",
        b"%25",
        b"%252e",
        b"%",
        b"%4",
        b"%zz",
        b"%c0%ae",
        b"%ff",
        b"%E2%82",
        b"/",
        b"//",
        b"/./",
        b"/../",
        b";x=y",
        b"\\",
        b"?",
        b"#",
        b"??a",
        b"\xff",
        b"\xc3\xa9",
        b"*",
        b"{",
        b"|",
        b"%0d%0aX:%20y",
        b"+",
        b"@",
        b":",
    ]);
    draft.path = match random.index(9) {
        0 => old.to_ascii_uppercase(),
        1 => [&old[..], b"/"].concat(),
        2 => [b"https://localhost", &old[..]].concat(),
        3 => [b"http://user:pass@evil.example:99999", &old[..]].concat(),
        4 => random
            .pick(&[
                &b"*"[..],
                b"",
                b"localhost:8443",
                b"//localhost",
                b"http://",
                b"/",
                b"https:///x",
                b"/never-log-this-c4n4ry",
            ])
            .to_vec(),
        // One letter of it, written with a percent sign.
        5 if at < old.len() => {
            [&old[..at], format!("%{:02x}", old[at]).as_bytes(), &old[at + 1..]].concat()
        }
        _ => [&old[..at], piece, &old[at..]].concat(),
    };
}

fn query(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let repeated = 1_usize << random.between(1, 12);
    let added = match random.index(8) {
        0 => b"&".repeat(repeated),
        1 => b"a=b&".repeat(repeated),
        2 => b"value=5&value=6".to_vec(),
        3 => b"value=%FF%FE".to_vec(),
        4 => format!("{CANARY}={CANARY}").into_bytes(),
        5 => b"page[size]=99999999999999999999&page[size]=-1&page[after]=%00".to_vec(),
        6 => "välue=5".as_bytes().to_vec(),
        _ => b"=&=&==;&%3D%26[]=&count=0&value".to_vec(),
    };
    draft.query = [&draft.query[..], b"&", &added].concat();
}

fn host(draft: &mut Draft, _: &Cast, random: &mut Random) {
    if !random.one_in(4) {
        draft.take_header("Host");
    }
    let long = "h".repeat(1 << random.between(6, 14));
    let value = match random.index(9) {
        0 => return,
        1 => "evil.example",
        2 => "",
        3 => "user:pass@localhost",
        4 => "localhost:99999999",
        5 => "[::1",
        6 => "local host",
        7 => &long,
        _ => "localhost\u{e9}, localhost",
    };
    draft.header("Host", value);
}

fn credentials(draft: &mut Draft, cast: &Cast, random: &mut Random) {
    let (account, other) = (
        &cast.lasting[random.index(cast.lasting.len())],
        &cast.lasting[random.index(cast.lasting.len())],
    );
    // A password can end its tenant, so only those are sent to odd places who may be lost.
    let password = basic(&cast.expendable[random.index(cast.expendable.len())]);
    let key = &account.key;
    if random.index(3) > 0 {
        draft.take_header("Authorization");
    }
    let mut flipped = key.clone().into_bytes();
    let at = random.index(flipped.len());
    flipped[at] = random.byte();
    let value: Vec<u8> = match random.index(14) {
        0 => Vec::new(),
        1 => format!("bearer   {key}  ").into_bytes(),
        2 => format!("Bearer\t{key}").into_bytes(),
        3 => format!("Bearer {key}, Basic {password}").into_bytes(),
        4 => format!("Bearer {}{}", &key[..20], &other.key[20..]).into_bytes(),
        5 => [b"Bearer ", &flipped[..]].concat(),
        6 => format!("Bearer {}", &key[..at]).into_bytes(),
        7 => format!("Bearer {}", key.repeat(1 << random.between(1, 8))).into_bytes(),
        8 => format!("Bearer {key}\0").into_bytes(),
        9 => format!("Basic {password}").into_bytes(),
        10 => format!("Basic {}", &password[1..]).into_bytes(),
        11 => format!("Basic {}=", "QUFB".repeat(1 << random.between(0, 10))).into_bytes(),
        12 => random
            .pick(&[
                &b"Basic"[..],
                b"Basic Og==",
                b"Basic /w==",
                b"Digest x",
                b"Bearer",
                b"\xff\xfe",
                b"Basic !!!!",
            ])
            .to_vec(),
        _ => format!("Bearer {key}\r\nAuthorization: Basic {password}").into_bytes(),
    };
    draft.header("Authorization", value);
}

fn doubled_header(draft: &mut Draft, _: &Cast, random: &mut Random) {
    if draft.headers.is_empty() {
        return;
    }
    let line = draft.headers[random.index(draft.headers.len())].clone();
    let line = if random.one_in(2) { line.to_ascii_uppercase() } else { line };
    draft.headers.insert(random.index(draft.headers.len() + 1), line);
}

fn odd_header(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let lines: [&[u8]; 22] = [
        b": no name",
        b"no colon",
        b"",
        b" folded: x",
        b"X : space",
        b"X\t: tab",
        b"X: a\r\n folded",
        b"X: a\r\n\tfolded",
        b"X\0: nul",
        b"X: nul\0",
        b"X\xff: high",
        b"X: high\xff\xfe",
        b"X: a\x7f",
        b"X: a\x01\x1b[31m",
        b"(X): y",
        b"X;: y",
        b"X: \x0b",
        b"X:",
        b"X:::::",
        b"GET / HTTP/1.1",
        b"\"X\": y",
        b"X: caf\xc3\xa9",
    ];
    draft.headers.insert(random.index(draft.headers.len() + 1), random.pick(&lines).to_vec());
}

/// Headers that ask for something which the server does not do, does elsewhere, or should not take
/// twice.
fn meaning_header(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let long = "k".repeat(random.pick(&[254, 255, 256, 257, 5000]));
    let (name, value) = random.pick(&[
        ("Expect", "100-continue"),
        ("Expect", "the unexpected"),
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket"),
        ("Connection", "upgrade, HTTP2-Settings, close"),
        ("Connection", "Authorization, Host, Content-Length"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("TE", "trailers, deflate;q=0.5"),
        ("Trailer", "Content-Length, Authorization"),
        ("Range", "bytes=0-0,-1"),
        ("If-Match", "\"unterminated"),
        ("If-Match", "W/\"\", *, \"\u{e9}\""),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Thu, 99 Foo 0000 99:99:99 GMT"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "two words"),
        ("Idempotency-Key", "\u{e9}"),
        ("Idempotency-Key", &long),
        ("X-Request-Id", &long),
        ("X-Request-Id", "with space"),
        ("traceparent", "00-00000000000000000000000000000000-0000000000000000-ff"),
        ("X-Forwarded-For", "::::, 999.1.1.1, unknown, \"[::1]:80\""),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Content-Encoding", "gzip, gzip"),
        ("Content-Type", "multipart/form-data; boundary=\""),
        ("Content-Type", "application/vnd.api+json; ext=\"x\""),
        ("Content-Type", "application/json; charset=utf-16"),
        ("Content-Type", ""),
    ]);
    if random.one_in(2) {
        draft.take_header(name);
    }
    draft.header(name, value);
}

fn many_headers(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let count = 1 << random.between(5, 12);
    for number in 0..count {
        draft.headers.push(format!("X-{number}: {number}").into_bytes());
    }
}

fn over_long(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let length = 1 << random.between(10, 18);
    let long = vec![random.pick(b"a/%0 \t"); length];
    match random.index(5) {
        0 => draft.path.extend_from_slice(&long),
        1 => draft.query.extend_from_slice(&long),
        2 => draft.header("X-Long", &long),
        3 => draft.headers.push([&long[..], b": y"].concat()),
        _ => draft.version.extend_from_slice(&long),
    }
}

fn line_ends(draft: &mut Draft, _: &Cast, random: &mut Random) {
    match random.index(6) {
        0 => draft.line_end = b"\n",
        1 => draft.line_end = b"\r",
        2 => draft.line_end = b"\r\r\n",
        3 => draft.line_end = b"\n\r",
        4 => draft.method.splice(0..0, b"\r\n".repeat(1 << random.between(0, 10))).for_each(drop),
        _ => draft.headers.push(b"X: y\rZ: w\nV: u".to_vec()),
    }
    if random.one_in(4) {
        draft.framing = Framing::As(Vec::new(), draft.content());
    }
}

fn control_characters(draft: &mut Draft, _: &Cast, random: &mut Random) {
    let byte = random.pick(b"\0\0\r\n\t\x0b\x7f\x1b \xff");
    let place = match random.index(4) {
        0 => &mut draft.method,
        1 => &mut draft.path,
        2 => &mut draft.version,
        _ if draft.headers.is_empty() => &mut draft.query,
        _ => {
            let at = random.index(draft.headers.len());
            &mut draft.headers[at]
        }
    };
    place.insert(random.index(place.len() + 1), byte);
}
