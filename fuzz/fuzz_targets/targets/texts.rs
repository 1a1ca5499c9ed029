//! The targets `body` and `key`: what a caller sends.
//!
//! Job: parse parameters, keys and names as the server does.
//! Invariant: the answer is a value or a refusal that is the caller's fault; a number is what was
//! written; what is accepted is given back as it came.
//! Must never: let a secret into what Debug shows.

use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use odometer::auth::key::{ApiKey, KEY_CHARS};
use odometer::domain::counter::{CounterName, Value};
use odometer::domain::tenant::{TenantId, TenantName};
use odometer::http::error::ApiError;
use odometer::http::extract::params::Params;
use odometer::http::extract::values::{AnyValue, Whole};
use odometer::http::jsonapi;
use odometer::store::embedded::codec::key::RecordKey;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Parameters that the API reads, and one that it does not, each by itself: one that cannot be read
/// does not hide another.
#[derive(Debug, Deserialize)]
struct Number {
    value: AnyValue,
}

#[derive(Debug, Deserialize)]
struct NumberAsText {
    value: String,
}

#[derive(Debug, Deserialize)]
struct Count {
    #[expect(dead_code, reason = "it is compared as Debug shows it")]
    count: Option<Whole<1, 1_000_000>>,
}

#[derive(Debug, Deserialize)]
struct Texts {
    #[expect(dead_code, reason = "it is compared as Debug shows it")]
    username: String,
    #[expect(dead_code, reason = "it is compared as Debug shows it")]
    password: String,
    #[expect(dead_code, reason = "it is compared as Debug shows it")]
    other: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Data {
    data: Option<IgnoredAny>,
}

const FORM: &str = "application/x-www-form-urlencoded";
const CRC_DIGITS: usize = 8;
const SECRET_START: usize = 21;

/// A request's parameters before they are parsed.
#[derive(Clone)]
struct Sent<'a> {
    query: Option<&'a str>,
    kind: Option<HeaderValue>,
    body: &'a [u8],
}

/// Three parts, each but the last ended by a line feed: the content type, the query, the body.
pub(crate) fn body(input: &[u8]) -> bool {
    let mut parts = input.splitn(3, |&byte| byte == b'\n');
    let (kind, query, body) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let (kind, query) =
        (kind.unwrap_or_default(), query.and_then(|query| std::str::from_utf8(query).ok()));
    if let (Some(text), Ok(form)) = (query, HeaderValue::from_str(FORM)) {
        let asked = Sent { query, kind: None, body: b"" };
        let sent = Sent { query: None, kind: Some(form), body: text.as_bytes() };
        assert_eq!(asked.shown(), sent.shown(), "a query is not what a form is: {text:?}");
    }
    let kind = HeaderValue::from_bytes(kind).ok().filter(|kind| !kind.is_empty());
    let sent = Sent { query, kind: kind.clone(), body };
    let number = sent.parse::<Number>();
    if let Ok(Number { value }) = &number {
        let text = sent.parse::<NumberAsText>().ok().map(|text| text.value);
        check_number(input, text.as_deref(), value.get());
    }
    if kind.is_some_and(|kind| kind == "application/json")
        && query.is_none_or(str::is_empty)
        && !body.is_empty()
    {
        check_wrapped(&sent);
    }
    number.is_ok()
}

impl Sent<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let mut headers = HeaderMap::new();
        self.kind.clone().map(|kind| headers.insert(CONTENT_TYPE, kind));
        let parsed = Params::parse(self.query, &headers, self.body).map(|Params(params)| params);
        parsed.inspect_err(refused)
    }

    /// What is read of each parameter.
    fn shown(&self) -> [String; 4] {
        let code = |error: ApiError| error.spec().code;
        [
            format!("{:?}", self.parse::<Number>().map_err(code)),
            format!("{:?}", self.parse::<NumberAsText>().map_err(code)),
            format!("{:?}", self.parse::<Count>().map_err(code)),
            format!("{:?}", self.parse::<Texts>().map_err(code)),
        ]
    }
}

fn refused(error: &ApiError) {
    assert!(error.spec().status.is_client_error(), "{error:?} is the caller's fault");
    assert_eq!(jsonapi::error(error, "id", None).status(), error.spec().status);
}

/// A value is digits that stand in the input, unless they were escaped.
fn check_number(input: &[u8], text: Option<&str>, value: Value) {
    let digits = value.to_string();
    if let Some(text) = text {
        assert_eq!(text, digits);
    }
    if !input.iter().any(|byte| matches!(byte, b'\\' | b'%')) {
        assert!(
            input.windows(digits.len()).any(|window| window == digits.as_bytes()),
            "{digits} was not written"
        );
    }
}

/// A plain object and the same one as the attributes of a JSON:API document say the same.
fn check_wrapped(sent: &Sent<'_>) {
    let document = [br#"{"data":{"type":"x","attributes":"#, sent.body, b"}}"].concat();
    let kind = Some(HeaderValue::from_static("application/vnd.api+json"));
    let wrapped = Sent { query: None, kind, body: &document };
    // A body that is such a document itself is read in another way inside one; so is one that nests
    // as deep as is allowed.
    if wrapped.parse::<Data>().is_ok_and(|wrapped| wrapped.data.is_none())
        && sent.parse::<Data>().is_ok()
    {
        assert_eq!(sent.shown(), wrapped.shown());
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
        check_stored(RecordKey::Counter(TenantId(1), name));
        accepted = true;
    }
    if let Ok(name) = TenantName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!((1..=TenantName::MAX_BYTES).contains(&text.len()));
        let folded = TenantName::parse(&name.normalized()).expect("a folded name is a name");
        assert_eq!(folded.normalized(), name.normalized());
        check_stored(RecordKey::Name(name.normalized()));
        accepted = true;
    }
    accepted
}

fn check_stored(key: RecordKey) {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    assert_eq!(RecordKey::decode(&bytes), Ok(key));
}

fn check_key(text: &[u8]) -> bool {
    let Ok(key) = ApiKey::parse(text) else { return false };
    assert_eq!(key.expose().as_bytes(), text);
    assert!(key.matches(&key.secret_hash()));
    // The same key but for its secret: it must not prove the first, and Debug must not tell one
    // from the other.
    let mut twin = text.to_vec();
    twin[SECRET_START..KEY_CHARS - CRC_DIGITS]
        .iter_mut()
        .for_each(|digit| *digit = other_digit(*digit));
    let twin = ApiKey::parse(&with_crc(&twin)).expect("it has the shape of a key");
    assert!(!twin.matches(&key.secret_hash()));
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
