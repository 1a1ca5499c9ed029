//! What surrounds every request, whichever App it goes to.
//!
//! ```text
//! access_log.rs  the one middleware: outcome to metrics and access log; panics     audit.rs  audit events
//! request_id.rs  X-Request-Id, traceparent     client_ip.rs  X-Forwarded-For     headers.rs  fixed headers
//! detach.rs      a task of its own for changes that an audit asks for
//! ```
//! Job: values that are told are taken once, and told to metrics and log alike.
//! Invariant: an App is wrapped in these and in nothing else, see `routes.rs`.
//! Must never: let a path, query, key or body into log or metric.

pub mod access_log;
mod audit;
pub mod client_ip;
pub mod detach;
mod headers;
pub mod request_id;
