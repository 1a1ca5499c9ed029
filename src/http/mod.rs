//! The HTTP server: hyper serves the connections, actix-web runs the application.
//!
//! ```text
//! listeners.rs         bound addresses              server.rs       workers
//! connection.rs        one connection
//! admin_socket.rs      listener for operators       deadlines.rs    HTTP/1.1 timeouts
//! tls.rs               certificate                  head_scan.rs    ambiguous lengths
//! connection_limit.rs  limits, permits              idle.rs         HTTP/2 idle timeout
//! rlimit.rs            file descriptors             redirect.rs     plain HTTP → HTTPS
//!                                │
//! bridge.rs, header_names.rs     hyper's request → App → hyper's response
//!                                │
//! routes.rs            the App of each listener     route_table.rs  route labels
//! middleware/          access log, request id, client address, common headers
//! extract/             caller, parameters, idempotency key, preconditions
//! handlers/            one function per route       openapi/        the OpenAPI document
//! jsonapi.rs           responses                    error.rs, error_detail.rs  error responses
//! error_reference.rs   the errors for docs/errors.md
//! context.rs           what is known of a request   state.rs, target.rs  store, path
//! ```
//! Job: limit what a peer may use, and serve requests: authenticate, parse, call the store,
//! respond.
//! Invariant: a request that is rejected before the store is called changes nothing. A handler
//! reaches a tenant's data only with a [`Caller`](crate::auth::Caller), which only
//! authentication makes.
//! Must never: emit telemetry outside of `middleware/` and the listeners.

pub mod admin_socket;
pub mod bridge;
mod connection;
mod connection_limit;
pub mod context;
mod deadlines;
pub mod error;
mod error_detail;
pub mod error_reference;
pub mod extract;
mod handlers;
mod head_scan;
mod header_names;
mod idle;
pub mod jsonapi;
pub mod listeners;
pub mod middleware;
pub mod openapi;
pub mod redirect;
pub mod rlimit;
pub mod route_table;
pub mod routes;
pub mod server;
pub mod state;
pub mod target;
pub mod tls;
