//! The middleware of every App.
//!
//! ```text
//! access_log.rs  the middleware: request metrics, access log, panics, error documents
//! audit.rs       audit events                   detach.rs     tasks for audited changes
//! request_id.rs  X-Request-Id, traceparent      client_ip.rs  X-Forwarded-For
//! headers.rs     common response headers
//! ```
//! Job: observe every request; metrics and log get the same values.
//! Invariant: an App has this middleware and no other, see `routes.rs`.
//! Must never: let a path, query, key or body into a log or a metric.

pub mod access_log;
mod audit;
pub mod client_ip;
pub mod detach;
mod headers;
pub mod request_id;
