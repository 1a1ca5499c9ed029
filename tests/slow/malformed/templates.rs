//! Valid requests of every route, drawn by chance: all methods, credentials, media types,
//! parameters and headers that mean something.
//!
//! Job: [`draft`], and the cast ([`Cast`]) in whose names requests are made.
//! Invariant: what a request does depends on its number alone. Routes that end an account are asked
//! only in the names of those who are there to be lost.
//! Must never: use a control tenant's name, key or password.

use super::draft::{Draft, Framing, Media};
use crate::support::Random;

/// Nothing of this may ever be logged: it is in paths, queries, headers and bodies.
pub(crate) const CANARY: &str = "never-log-this-c4n4ry";
/// Different keys of retries, so that what a server remembers of them stays small.
const RETRY_KEYS: u64 = 512;

/// A tenant that the campaign speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) key: String,
}

/// Everybody whose credentials the requests use.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) lasting: Vec<Account>,
    /// May be deleted and lose their keys and passwords on the way.
    pub(crate) expendable: Vec<Account>,
}

/// Which credential a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Key,
    Basic,
    /// Ends something: a key, a password, a tenant.
    Expendable,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Name,
    Password,
    Value,
    Step,
    Count,
    Counter,
    Flag,
    Label,
    Scopes,
    Instant,
    Seconds,
}

type Field = (&'static str, Kind);

/// One route: how often, method, path, credential, parameters.
type Route = (u64, &'static str, &'static str, Who, &'static [Field]);

const LIMITS: &[Field] = &[
    ("name", Kind::Counter),
    ("start", Kind::Value),
    ("step", Kind::Step),
    ("min", Kind::Value),
    ("max", Kind::Value),
    ("rewindable", Kind::Flag),
];
const REGISTER: &[Field] = &[("username", Kind::Name), ("password", Kind::Password)];
const KEY: &[Field] =
    &[("label", Kind::Label), ("scopes", Kind::Scopes), ("expires_in", Kind::Seconds)];
const DATED_KEY: &[Field] = &[("label", Kind::Label), ("expires_at", Kind::Instant)];
const SET: &[Field] = &[("value", Kind::Value), ("rewind", Kind::Flag)];
const PASSWORD: &[Field] = &[("new_password", Kind::Password), ("revoke_keys", Kind::Flag)];

/// Every route, with its weight. `{counter}` and `{key}` are filled in. What hashes a password is
/// rare: it is dear, and a full queue of passwords is answered 503.
const ROUTES: &[Route] = &[
    (48, "GET", "/api/v1/integer", Who::Key, &[]),
    (8, "HEAD", "/api/v1/integer", Who::Key, &[]),
    (56, "PUT", "/api/v1/integer", Who::Key, &[("value", Kind::Value)]),
    (88, "PUT", "/api/v1/integer/increment", Who::Key, &[]),
    (16, "PUT", "/api/v1/integer/increment", Who::Key, &[("count", Kind::Count)]),
    (3, "POST", "/users/create", Who::Nobody, REGISTER),
    (4, "GET", "/livez", Who::Nobody, &[]),
    (4, "GET", "/readyz", Who::Nobody, &[]),
    (4, "GET", "/metrics", Who::Nobody, &[]),
    // Not the large documents: one that is on its way is cut when what was sent behind it ends the
    // connection.
    (4, "GET", "/docs", Who::Nobody, &[]),
    (20, "GET", "/api/v1/counters", Who::Key, &[]),
    (24, "POST", "/api/v1/counters", Who::Key, LIMITS),
    (16, "GET", "/api/v1/counters/{counter}", Who::Key, &[]),
    (24, "PUT", "/api/v1/counters/{counter}", Who::Key, SET),
    (8, "DELETE", "/api/v1/counters/{counter}", Who::Key, &[]),
    (32, "POST", "/api/v1/counters/{counter}/increment", Who::Key, &[("count", Kind::Count)]),
    (8, "GET", "/api/v1/keys", Who::Key, &[]),
    (8, "POST", "/api/v1/keys", Who::Key, KEY),
    (1, "POST", "/api/v1/keys", Who::Basic, DATED_KEY),
    (4, "DELETE", "/api/v1/keys/{key}", Who::Key, &[]),
    (1, "DELETE", "/api/v1/keys/{key}", Who::Expendable, &[]),
    (2, "POST", "/api/v1/tenants", Who::Nobody, REGISTER),
    (8, "GET", "/api/v1/tenant", Who::Key, &[]),
    (1, "GET", "/api/v1/tenant", Who::Basic, &[]),
    (1, "PUT", "/api/v1/tenant/password", Who::Expendable, PASSWORD),
    (1, "DELETE", "/api/v1/tenant", Who::Expendable, &[]),
];

/// A valid request of some route, at least as far as this version has it.
pub(crate) fn draft(cast: &Cast, random: &mut Random) -> Draft {
    let all: u64 = ROUTES.iter().map(|route| route.0).sum();
    let mut dice = random.between(0, all - 1);
    let mut routes = ROUTES.iter();
    let (_, method, path, who, fields) = loop {
        let route = routes.next().expect("the weights add up");
        match dice.checked_sub(route.0) {
            Some(rest) => dice = rest,
            None => break route,
        }
    };
    let account = account_of(cast, *who, random);
    // Who is to last keeps its key.
    let key_id = if *who == Who::Expendable { &account.key[4..20] } else { "0123456789abcdef" };
    let path = path.replace("{counter}", &counter(random)).replace("{key}", key_id);
    let mut draft = Draft {
        method: method.as_bytes().to_vec(),
        path: path.into_bytes(),
        query: Vec::new(),
        version: b"HTTP/1.1".to_vec(),
        headers: vec![b"Host: localhost".to_vec()],
        fields: fields
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), value(*kind, random)))
            .collect(),
        media: random.pick(&[Media::Form, Media::Json, Media::JsonApi, Media::Query]),
        body: None,
        framing: if random.one_in(4) { Framing::Chunked } else { Framing::Length },
        line_end: b"\r\n",
        cut_at: None,
    };
    if *method == "PUT" && draft.path.starts_with(b"/api/v1/integer") && random.one_in(4) {
        // The old routes ignore what they do not know, and nobody may log it.
        draft.fields.push(("note".to_owned(), format!("\"{CANARY}\"")));
    }
    if *method == "GET" || *method == "HEAD" {
        draft.framing = Framing::Length;
        if draft.path.ends_with(b"s") && random.one_in(2) {
            draft.query = page(random).into_bytes();
        }
    }
    match who {
        Who::Nobody => {}
        Who::Key => draft.header("Authorization", format!("Bearer {}", account.key)),
        Who::Basic | Who::Expendable => {
            draft.header("Authorization", format!("Basic {}", basic(account)))
        }
    }
    add_headers(&mut draft, random);
    draft
}

fn account_of<'a>(cast: &'a Cast, who: Who, random: &mut Random) -> &'a Account {
    let (lasting, expendable) =
        (random.index(cast.lasting.len()), random.index(cast.expendable.len()));
    if who == Who::Expendable { &cast.expendable[expendable] } else { &cast.lasting[lasting] }
}

/// Headers that mean something, or may.
fn add_headers(draft: &mut Draft, random: &mut Random) {
    if !draft.content().is_empty() {
        draft.header("Content-Type", Draft::content_type(draft.media));
    }
    if random.one_in(8) {
        draft.header("Idempotency-Key", format!("retry-{}", random.between(1, RETRY_KEYS)));
    }
    if random.one_in(12) {
        draft.header("If-Match", random.pick(&["*", "\"1-1\"", "\"1-2\", \"1-3\"", "W/\"1-1\""]));
    }
    for (often, name, value) in [
        (3, "Accept", "application/vnd.api+json"),
        (3, "User-Agent", "campaign/1.0"),
        (8, "X-Request-Id", "campaign"),
        (8, "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (8, "X-Forwarded-For", "10.1.2.3, 10.9.8.7"),
        (6, "Cookie", CANARY),
        (20, "Connection", "close"),
        (20, "Connection", "keep-alive"),
        (20, "Expect", "100-continue"),
    ] {
        if random.one_in(often) {
            draft.header(name, value);
        }
    }
}

pub(crate) fn counter(random: &mut Random) -> String {
    match random.index(4) {
        0 => "default".to_owned(),
        _ => format!("counter-{}", random.between(1, 20)),
    }
}

fn page(random: &mut Random) -> String {
    let size = random.between(0, 101);
    match random.index(4) {
        0 => format!("page[size]={size}"),
        1 => format!("page%5Bsize%5D={size}&page%5Bafter%5D=ZGVmYXVsdA"),
        2 => format!("page[after]={CANARY}"),
        _ => format!("page[size]={size}&page[after]=&page[before]=x"),
    }
}

/// A value of its kind, written as JSON.
fn value(kind: Kind, random: &mut Random) -> String {
    let number = |random: &mut Random, most: u64| {
        let number = match random.index(4) {
            0 => most,
            1 => random.between(0, most),
            _ => random.between(1, 1000),
        };
        if random.one_in(3) { format!("\"{number}\"") } else { number.to_string() }
    };
    match kind {
        Kind::Name => format!("\"guest-{}\"", random.next() % 1_000_000),
        // Most are refused before they are hashed.
        Kind::Password => match random.index(4) {
            0 => format!("\"a fine password, {CANARY}\""),
            1 => "\"password\"".to_owned(),
            2 => "\"short\"".to_owned(),
            _ => format!("\"{}{CANARY}\"", "long".repeat(64)),
        },
        Kind::Value => number(random, (1 << 53) - 1),
        Kind::Step => number(random, 1 << 20),
        Kind::Count => number(random, 1_000_000),
        Kind::Counter => format!("\"{}\"", counter(random)),
        Kind::Flag => random.pick(&["true", "false", "\"true\"", "\"1\""]).to_owned(),
        Kind::Label => format!("\"{CANARY} of a tenant\""),
        Kind::Scopes => random
            .pick(&["[\"read\",\"increment\"]", "\"read,manage\"", "[]", "[\"read\",7]", "\"all\""])
            .to_owned(),
        Kind::Instant => random
            .pick(&["\"2099-01-01T00:00:00Z\"", "\"2001-01-01T00:00:00Z\"", "null"])
            .to_owned(),
        Kind::Seconds => number(random, 315_360_000),
    }
}

/// `name:password` in base64.
pub(crate) fn basic(account: &Account) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{}:{}", account.name, account.password);
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            coded.push(if at > three.len() { '=' } else { char::from(letter) });
        }
    }
    coded
}
