//! The targets `body` and `key`: what a caller sends.
//!
//! Job: parse parameters, keys and names as the server does. Invariant: the answer is a value or a refusal that is the caller's fault; a number
//! is what was written; what is accepted is given back as it came. Must never: let a secret into what Debug shows.

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use odometer::api::document;
use odometer::api::error::ApiError;
use odometer::api::params::Params;
use odometer::auth::key::{ApiKey, KEY_CHARS};
use odometer::counter::{CounterName, Value};
use odometer::store::embedded::key::Key;
use odometer::tenant::{TenantId, TenantName};

/// The parameters that the API reads, and one that it does not.
const NAMES: [&str; 5] = ["value", "count", "username", "password", "other"];
const FORM: &str = "application/x-www-form-urlencoded";
const CRC_DIGITS: usize = 8;
const SECRET_START: usize = 21;

/// Three parts, each but the last ended by a line feed: the content type, the query, the body.
pub(crate) fn body(input: &[u8]) -> bool {
    let mut parts = input.splitn(3, |&byte| byte == b'\n');
    let (kind, query, body) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let (kind, query) = (kind.unwrap_or_default(), query.and_then(|query| std::str::from_utf8(query).ok()));
    if let (Some(query), Ok(form)) = (query, HeaderValue::from_str(FORM)) {
        let asked = parse(Some(query), None, b"");
        let sent = parse(None, Some(form), query.as_bytes());
        assert_eq!(shown(asked.as_ref()), shown(sent.as_ref()), "a query is not what a form is: {query:?}");
    }
    let kind = HeaderValue::from_bytes(kind).ok().filter(|kind| !kind.is_empty());
    let parsed = parse(query, kind.clone(), body);
    let Ok(params) = &parsed else { return false };
    let mut accepted = false;
    for name in NAMES {
        let (text, value) = (params.text(name), params.value(name));
        if let Ok(value) = value {
            assert!(params.has(name), "{name} came from nowhere");
            check_number(input, text.as_ref().ok().copied(), value);
            accepted = true;
        }
    }
    if kind.is_some_and(|kind| kind == "application/json") && query.is_none_or(str::is_empty) && !body.is_empty() {
        check_wrapped(params, body);
    }
    accepted
}

fn parse(query: Option<&str>, kind: Option<HeaderValue>, body: &[u8]) -> Result<Params, ApiError> {
    let mut headers = HeaderMap::new();
    kind.map(|kind| headers.insert(CONTENT_TYPE, kind));
    let parsed = Params::parse(query, &headers, body);
    if let Err(error) = &parsed {
        refused(error);
    }
    parsed
}

fn refused(error: &ApiError) {
    assert!(error.row().status.is_client_error(), "{error:?} is the caller's fault");
    assert_eq!(document::error(error, "id").status(), error.row().status);
}

/// What is read of each parameter.
fn shown(params: Result<&Params, &ApiError>) -> Vec<String> {
    let Ok(params) = params else { return vec!["refused".to_owned()] };
    let one = |name: &'static str| {
        let (text, value) = (params.text(name), params.value(name));
        [text.as_ref().err(), value.as_ref().err()].into_iter().flatten().for_each(refused);
        format!("{name}: {} {:?} {:?}", params.has(name), text.ok(), value.ok())
    };
    NAMES.into_iter().map(one).collect()
}

/// A value is digits that stand in the input, unless they were escaped.
fn check_number(input: &[u8], text: Option<&str>, value: Value) {
    let digits = value.to_string();
    if let Some(text) = text {
        assert_eq!(text, digits);
    }
    if !input.iter().any(|byte| matches!(byte, b'\\' | b'%')) {
        assert!(input.windows(digits.len()).any(|window| window == digits.as_bytes()), "{digits} was not written");
    }
}

/// A plain object and the same one as the attributes of a JSON:API document say the same.
fn check_wrapped(params: &Params, body: &[u8]) {
    let document = [br#"{"data":{"type":"x","attributes":"#, body, b"}}"].concat();
    let wrapped = parse(None, Some(HeaderValue::from_static("application/vnd.api+json")), &document);
    // A body that is such a document itself is read in another way inside one; so is one that nests as deep as is allowed.
    if let Some(wrapped) = wrapped.ok().filter(|wrapped| !wrapped.has("data")) {
        assert_eq!(shown(Ok(params)), shown(Ok(&wrapped)));
    }
}

/// The input as a key, as a key whose checksum is right, and as names.
pub(crate) fn key(input: &[u8]) -> bool {
    let mut accepted = check_key(input);
    if input.len() == KEY_CHARS {
        accepted |= check_key(&with_crc(input));
    }
    let Ok(text) = std::str::from_utf8(input) else { return accepted };
    if let Ok(name) = CounterName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=CounterName::MAX_BYTES).contains(&text.len()));
        check_stored(Key::Counter(TenantId(1), name));
        accepted = true;
    }
    if let Ok(name) = TenantName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=TenantName::MAX_BYTES).contains(&text.len()));
        let folded = TenantName::parse(&name.folded()).expect("a folded name is a name");
        assert_eq!(folded.folded(), name.folded());
        check_stored(Key::Name(name.folded()));
        accepted = true;
    }
    accepted
}

fn check_stored(key: Key) {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    assert_eq!(Key::decode(&bytes), Ok(key));
}

fn check_key(text: &[u8]) -> bool {
    let Ok(key) = ApiKey::parse(text) else { return false };
    assert_eq!(key.reveal().as_bytes(), text);
    assert!(key.proves(&key.secret_hash()));
    // The same key but for its secret: it must not prove the first, and Debug must not tell one from the other.
    let mut twin = text.to_vec();
    twin[SECRET_START..KEY_CHARS - CRC_DIGITS].iter_mut().for_each(|digit| *digit = other_digit(*digit));
    let twin = ApiKey::parse(&with_crc(&twin)).expect("it has the shape of a key");
    assert!(!twin.proves(&key.secret_hash()));
    assert_eq!(format!("{key:?}"), format!("{twin:?}"));
    assert_eq!(format!("{:?}", key.secret_hash()), format!("{:?}", twin.secret_hash()));
    true
}

fn other_digit(digit: u8) -> u8 {
    if digit == b'0' { b'1' } else { b'0' }
}

/// The same text with the CRC that belongs to it.
fn with_crc(text: &[u8]) -> Vec<u8> {
    let body = &text[..text.len() - CRC_DIGITS];
    [body, format!("{:08x}", crc32c::crc32c(body)).as_bytes()].concat()
}
