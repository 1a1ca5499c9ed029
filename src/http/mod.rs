//! The HTTP server: connections are hyper's, the application on them is actix-web's.
//!
//! ```text
//! listeners.rs  server.rs workers   connection.rs one connection      bridge.rs, header_names.rs  hyper's request → the App → hyper's response
//! admin_socket.rs  tls.rs          deadlines.rs head_scan.rs idle.rs   rlimit.rs  open files     connection_limit.rs
//!                                          │
//! routes.rs  the Apps: public, redirect, operators', admin socket    openapi/  the document, finished
//! middleware/ access log, request id, client address, headers        handlers/ one function a route
//! extract/    caller, parameters, idempotency key, preconditions     jsonapi.rs error.rs  responses
//! error_reference.rs  what each error means, for docs/errors.md
//! context.rs  what is known of a request    route_table.rs  its label    state.rs  the worker's store    target.rs  its path
//! ```
//! Job: bound what a peer may use, and answer requests: authenticate, parse, ask the store, respond.
//! Invariant: everything that is refused before the store was asked changed nothing. A handler
//! reaches a tenant's data only with a [`Caller`](extract::caller::Caller), which only
//! authentication makes. Must never: emit telemetry outside of `middleware/` and the listeners.

pub mod admin_socket;
pub mod bridge;
mod connection;
mod connection_limit;
pub mod context;
mod deadlines;
pub mod error;
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
