//! Every route, on one screen.
//!
//! Job: [`TABLE`], and from method and path to a [`Route`], or to why there is none. Invariant: labels of metrics and logs ([`PATTERNS`]), `Allow`,
//! 404 and 405 all follow from the table; an unknown path can never make a new label. What a route needs of its caller stands here and nowhere else.
//! Must never: look into a body or at a credential.

use std::borrow::Cow;

use hyper::Method;

use super::docs::File;
use crate::auth::Needs;
use crate::tenant::Scopes;

/// One row: a path pattern, with at most one `{parameter}`; a method, where `GET` takes `HEAD` too; what it leads to.
pub type Row = (&'static str, &'static str, Route);

const READ: Needs = Needs::Key(Scopes::READ);
const INCREMENT: Needs = Needs::Key(Scopes::INCREMENT);
const MANAGE: Needs = Needs::Key(Scopes::MANAGE);
const MANAGE_OR_PASSWORD: Needs = Needs::KeyOrPassword(Some(Scopes::MANAGE));
const ANYBODY: Needs = Needs::KeyOrPassword(None);

/// Every route. The methods of a path stand together.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    ("/users/create", "POST", Route::Open(Open::Register)),
    ("/api/v1/integer", "GET", Route::Guarded(Guarded::ReadInteger, READ)),
    ("/api/v1/integer", "PUT", Route::Guarded(Guarded::SetInteger, MANAGE)),
    ("/api/v1/integer/increment", "PUT", Route::Guarded(Guarded::IncrementInteger, INCREMENT)),
    ("/api/v1/counters", "GET", Route::Guarded(Guarded::ListCounters, READ)),
    ("/api/v1/counters", "POST", Route::Guarded(Guarded::CreateCounter, MANAGE)),
    ("/api/v1/counters/{name}", "GET", Route::Guarded(Guarded::ReadCounter, READ)),
    ("/api/v1/counters/{name}", "PUT", Route::Guarded(Guarded::SetCounter, MANAGE)),
    ("/api/v1/counters/{name}", "DELETE", Route::Guarded(Guarded::DeleteCounter, MANAGE)),
    ("/api/v1/counters/{name}/increment", "POST", Route::Guarded(Guarded::IncrementCounter, INCREMENT)),
    ("/api/v1/keys", "GET", Route::Guarded(Guarded::ListKeys, MANAGE_OR_PASSWORD)),
    ("/api/v1/keys", "POST", Route::Guarded(Guarded::CreateKey, MANAGE_OR_PASSWORD)),
    ("/api/v1/keys/{id}", "DELETE", Route::Guarded(Guarded::RevokeKey, MANAGE_OR_PASSWORD)),
    ("/api/v1/tenants", "POST", Route::Open(Open::CreateTenant)),
    ("/api/v1/tenant", "GET", Route::Guarded(Guarded::ShowTenant, ANYBODY)),
    ("/api/v1/tenant", "DELETE", Route::Guarded(Guarded::DeleteTenant, Needs::Password)),
    ("/api/v1/tenant/password", "PUT", Route::Guarded(Guarded::ChangePassword, Needs::Password)),
    ("/livez", "GET", Route::Open(Open::Livez)),
    ("/readyz", "GET", Route::Open(Open::Readyz)),
    ("/metrics", "GET", Route::Open(Open::Metrics)),
    ("/openapi.json", "GET", Route::Open(Open::Openapi)),
    ("/docs", "GET", Route::Open(Open::Docs(File::Page))),
    ("/docs/start.js", "GET", Route::Open(Open::Docs(File::Start))),
    ("/docs/swagger-ui.css", "GET", Route::Open(Open::Docs(File::Style))),
    ("/docs/swagger-ui-bundle.js", "GET", Route::Open(Open::Docs(File::Bundle))),
];

impl Route {
    /// The status of an answer that did what was asked.
    #[must_use]
    pub fn success(self) -> u16 {
        match self {
            Self::Open(Open::CreateTenant) | Self::Guarded(Guarded::CreateCounter | Guarded::CreateKey, _) => 201,
            Self::Guarded(
                Guarded::DeleteCounter | Guarded::RevokeKey | Guarded::DeleteTenant | Guarded::ChangePassword,
                _,
            ) => 204,
            _ => 200,
        }
    }

    /// Whether it changes who may do what.
    #[must_use]
    pub fn is_audited(self) -> bool {
        matches!(
            self,
            Self::Open(Open::Register | Open::CreateTenant)
                | Self::Guarded(
                    Guarded::CreateKey | Guarded::RevokeKey | Guarded::DeleteTenant | Guarded::ChangePassword,
                    _
                )
        )
    }

    /// Whether it is what tenants come for, and not a look at the server or its documents.
    #[must_use]
    pub fn is_of_api(self) -> bool {
        matches!(self, Self::Guarded(..) | Self::Open(Open::Register | Open::CreateTenant))
    }
}

/// The label of everything that has no route.
pub const OTHER: usize = 0;

/// Path patterns, by their label's index.
pub const PATTERNS: &[&str] = &patterns();

/// The label of a row's path.
#[must_use]
pub fn label(row: &Row) -> usize {
    PATTERNS.iter().position(|pattern| *pattern == row.0).unwrap_or(OTHER)
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Anybody may ask.
    Open(Open),
    /// Somebody who proves this much may ask.
    Guarded(Guarded, Needs),
}

/// What anybody may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Register a tenant, as the old application did.
    Register,
    /// Register a tenant.
    CreateTenant,
    /// Is the process alive?
    Livez,
    /// Does it take requests?
    Readyz,
    /// Prometheus' text.
    Metrics,
    /// The API as an OpenAPI document.
    Openapi,
    /// The API as a page, or what the page loads.
    Docs(File),
}

/// What only tenants may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Read the counter `default`, as the old application did.
    ReadInteger,
    /// Set it.
    SetInteger,
    /// Increment it.
    IncrementInteger,
    /// List counters.
    ListCounters,
    /// Create one.
    CreateCounter,
    /// Read one.
    ReadCounter,
    /// Set one.
    SetCounter,
    /// Delete one.
    DeleteCounter,
    /// Increment one.
    IncrementCounter,
    /// List keys.
    ListKeys,
    /// Make one.
    CreateKey,
    /// Revoke one.
    RevokeKey,
    /// Tell about the tenant.
    ShowTenant,
    /// Delete it.
    DeleteTenant,
    /// Give it another password.
    ChangePassword,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path.
    Path,
    /// The path has other methods: the value of `Allow`.
    Method(String),
}

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTPS, for tenants.
    Public,
    /// Plain HTTP that points there: it has no route.
    Plain,
    /// Plain HTTP, for the operators' tools.
    Ops,
}

impl Listener {
    /// Whether it has this route.
    #[must_use]
    pub fn has(self, route: Route) -> bool {
        match route {
            Route::Open(Open::Livez | Open::Readyz) => self != Self::Plain,
            Route::Open(Open::Metrics) => self == Self::Ops,
            _ => self == Self::Public,
        }
    }
}

/// What was found for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'p> {
    /// The label.
    pub label: usize,
    /// The route.
    pub route: Result<Route, NoRoute>,
    /// The path's parameter as it was sent, see [`decode`]; empty if it has none.
    pub parameter: &'p str,
}

/// Whether a request may change who may do what.
#[must_use]
pub fn is_audited(method: &Method, path: &str) -> bool {
    let mut rows = TABLE.iter().filter(|(_, _, route)| route.is_audited());
    rows.any(|(pattern, known, _)| *known == method.as_str() && matches(pattern, path).is_some())
}

/// Finds the route of a request.
#[must_use]
pub fn find<'p>(listener: Listener, method: &Method, path: &'p str) -> Found<'p> {
    let known = PATTERNS.iter().enumerate().skip(1).find_map(|(label, pattern)| Some((label, matches(pattern, path)?)));
    let nowhere = Found { label: OTHER, route: Err(NoRoute::Path), parameter: "" };
    let Some((label, parameter)) = known else { return nowhere };
    let rows = || TABLE.iter().filter(|(pattern, _, route)| *pattern == PATTERNS[label] && listener.has(*route));
    let asked = if *method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some((_, _, route)) = rows().find(|(_, method, _)| *method == asked) {
        return Found { label, route: Ok(*route), parameter };
    }
    let allowed: Vec<&str> = rows()
        .flat_map(|(_, method, _)| if *method == "GET" { &["GET", "HEAD"][..] } else { std::slice::from_ref(method) })
        .copied()
        .collect();
    if allowed.is_empty() {
        return nowhere;
    }
    Found { label, route: Err(NoRoute::Method(allowed.join(", "))), parameter }
}

/// Decodes a path parameter, once. `None` if it is not well encoded, or not ASCII, which no parameter of ours is.
#[must_use]
pub fn decode(sent: &str) -> Option<Cow<'_, str>> {
    if !sent.contains('%') {
        return Some(Cow::Borrowed(sent));
    }
    let mut text = String::with_capacity(sent.len());
    let mut parts = sent.split('%');
    text.push_str(parts.next()?);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| is_hex && byte.is_ascii())?;
        text.push(char::from(byte));
        text.push_str(rest);
    }
    Some(Cow::Owned(text))
}

/// The parameter in `path` if it has this pattern; empty if the pattern has none.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, rest)) = pattern.split_once('{') else { return (pattern == path).then_some("") };
    let (_, after) = rest.split_once('}')?;
    let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
    (!parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
}

const fn count_patterns() -> usize {
    let (mut count, mut row) = (1, 0);
    while row < TABLE.len() {
        count += if row == 0 || !is_same(TABLE[row].0, TABLE[row - 1].0) { 1 } else { 0 };
        row += 1;
    }
    count
}

const fn patterns() -> [&'static str; count_patterns()] {
    let mut patterns = ["other"; count_patterns()];
    let (mut count, mut row) = (1, 0);
    while row < TABLE.len() {
        if row == 0 || !is_same(TABLE[row].0, TABLE[row - 1].0) {
            patterns[count] = TABLE[row].0;
            count += 1;
        }
        row += 1;
    }
    patterns
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_tenants_have_their_own_listeners() {
        let route = |listener, path| find(listener, &Method::GET, path).route;
        assert_eq!(route(Listener::Public, "/metrics"), Err(NoRoute::Path));
        assert_eq!(route(Listener::Ops, "/api/v1/integer"), Err(NoRoute::Path));
        assert_eq!(route(Listener::Ops, "/metrics"), Ok(Route::Open(Open::Metrics)));
        assert_eq!(route(Listener::Ops, "/readyz"), Ok(Route::Open(Open::Readyz)));
    }

    #[test]
    fn an_unknown_path_shares_one_label() {
        for path in [
            "/",
            "",
            "/api/v1/integer/",
            "/api/v1/integers",
            "*",
            "/API/v1/integer",
            "other",
            "/api/v1/counters/",
            "/api/v1/counters//increment",
            "/api/v1/counters/a/b",
            "/api/v1/counters/a/increment/",
            "/api/v1/counters/a/b/increment",
            "/api/v1/keys/",
            "/api/v1/counters/{name}/",
        ] {
            let found = find(Listener::Public, &Method::GET, path);
            assert_eq!((found.label, found.route), (OTHER, Err(NoRoute::Path)), "{path}");
        }
    }

    #[test]
    fn every_row_is_found_with_its_label_and_parameter() {
        let mut labels: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
        labels.dedup();
        assert_eq!(labels, PATTERNS[1..], "the methods of a path stand together");
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len() + 1, PATTERNS.len(), "a pattern is there twice");
        for (pattern, method, route) in TABLE {
            let path = pattern.replace("{name}", "..").replace("{id}", "%2e");
            let listener = if *pattern == "/metrics" { Listener::Ops } else { Listener::Public };
            let found = find(listener, &method.parse().unwrap(), &path);
            assert_eq!((PATTERNS[found.label], found.route), (*pattern, Ok(*route)));
            let parameter = if pattern.contains("{name}") { ".." } else { "%2e" };
            assert_eq!(found.parameter, if pattern.contains('{') { parameter } else { "" });
        }
    }

    #[test]
    fn a_path_tells_its_methods() {
        for (path, allow) in [
            ("/users/create", "POST"),
            ("/api/v1/integer", "GET, HEAD, PUT"),
            ("/api/v1/counters/a", "GET, HEAD, PUT, DELETE"),
            ("/api/v1/keys/a", "DELETE"),
            ("/livez", "GET, HEAD"),
        ] {
            let found = find(Listener::Public, &Method::PATCH, path);
            assert_eq!(found.route, Err(NoRoute::Method(allow.to_owned())), "{path}");
        }
    }

    #[test]
    fn a_parameter_is_decoded_once() {
        for (sent, text) in [("a.b", "a.b"), ("%2E%2e", ".."), ("a%252e", "a%2e"), ("%41%2F", "A/"), ("a+b", "a+b")] {
            assert_eq!(decode(sent).as_deref(), Some(text), "{sent}");
        }
        for bad in ["%", "a%2", "%zz", "%+1", "%C3%A4", "%ff", "%é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
