//! Every route, on one screen.
//!
//! Job: from method and path to a [`Route`], or to why there is none. Invariant: [`PATTERNS`] has each path once; its index is the label that
//! metrics and logs use, so that an unknown path can never make a new label.
//! Must never: look into a body or at a credential.

use hyper::Method;

/// The label of everything that has no route.
pub const OTHER: usize = 0;

/// Path patterns, by their label's index.
pub const PATTERNS: &[&str] =
    &["other", "/users/create", "/api/v1/integer", "/api/v1/integer/increment", "/livez", "/readyz", "/metrics"];

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Register a tenant.
    Register,
    /// Read the default counter.
    Read,
    /// Set it.
    Set,
    /// Increment it.
    Increment,
    /// Is the process alive?
    Livez,
    /// Does it take requests?
    Readyz,
    /// Prometheus' text.
    Metrics,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No such path.
    Path,
    /// The path has other methods: the value of `Allow`.
    Method(&'static str),
}

/// Which listener a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTPS, for tenants.
    Public,
    /// Plain HTTP, for the operators' tools.
    Ops,
}

/// Finds the route and its label.
pub fn find(listener: Listener, method: &Method, path: &str) -> (usize, Result<Route, NoRoute>) {
    let label = PATTERNS.iter().skip(1).position(|pattern| *pattern == path).map_or(OTHER, |index| index + 1);
    let on_this_listener = match (listener, path) {
        (_, "/livez" | "/readyz") => true,
        (Listener::Ops, "/metrics") => true,
        (Listener::Ops, _) => false,
        (Listener::Public, path) => path != "/metrics",
    };
    if label == OTHER || !on_this_listener {
        return (OTHER, Err(NoRoute::Path));
    }
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let route = match path {
        "/users/create" if *method == Method::POST => Ok(Route::Register),
        "/users/create" => Err("POST"),
        "/api/v1/integer" if reads => Ok(Route::Read),
        "/api/v1/integer" if *method == Method::PUT => Ok(Route::Set),
        "/api/v1/integer" => Err("GET, HEAD, PUT"),
        "/api/v1/integer/increment" if *method == Method::PUT => Ok(Route::Increment),
        "/api/v1/integer/increment" => Err("PUT"),
        "/livez" if reads => Ok(Route::Livez),
        "/readyz" if reads => Ok(Route::Readyz),
        "/metrics" if reads => Ok(Route::Metrics),
        _ => Err("GET, HEAD"),
    };
    (label, route.map_err(NoRoute::Method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_tenants_have_their_own_listeners() {
        assert_eq!(find(Listener::Public, &Method::GET, "/metrics").1, Err(NoRoute::Path));
        assert_eq!(find(Listener::Ops, &Method::GET, "/api/v1/integer").1, Err(NoRoute::Path));
        assert_eq!(find(Listener::Ops, &Method::GET, "/metrics").1, Ok(Route::Metrics));
        assert_eq!(find(Listener::Ops, &Method::GET, "/readyz").1, Ok(Route::Readyz));
    }

    #[test]
    fn an_unknown_path_shares_one_label() {
        for path in ["/", "", "/api/v1/integer/", "/api/v1/integers", "*", "/API/v1/integer", "other"] {
            assert_eq!(find(Listener::Public, &Method::GET, path), (OTHER, Err(NoRoute::Path)), "{path}");
        }
    }
}
