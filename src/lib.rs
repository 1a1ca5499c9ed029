//! Odometer issues integers that go up by one, as a service: durable, unique, consecutive, over
//! HTTPS, for many tenants. It is one process with one data directory.
//!
//! **The promise:** every integer that was returned is on disk, unique, consecutive, and safe to
//! ask for again.
//!
//! # Life of a request
//!
//! ```text
//!  client
//!    │ HTTPS                                                                         ▲ response
//!    ▼                                                                               │
//!  http: TLS, connection limits, timeouts, HTTP/1.1 and HTTP/2 (hyper)               │
//!    ▼                                                                               │
//!  http: the App of one worker thread (actix-web)                                    │
//!    │    middleware ─► route ─► extractors ─────────────────────────► handler ──────┤
//!    │                           auth: API key ─► authorized Caller       │          │
//!    ▼                                                                    ▼          │
//!  store: queue ─► committer: decide ─► append one frame to the journal ─► fdatasync ┘
//!                                                        │
//!                                                        └─(later)─► checkpoint into sled, backup
//! ```
//!
//! 1. [`http`] accepts a connection and gives it to one worker thread, which serves it to its end.
//!    A bridge converts each request for the worker's App, and the response back. Middleware gives
//!    the request an id, and logs and counts it when it is answered.
//! 2. actix-web finds the route ([`http::routes`]). The handler's extractors run in their order.
//!    The first authenticates the API key, asks the tenant's rate limiter, and authorizes: its
//!    result, a [`Caller`](auth::Caller), is the only way to a tenant's data.
//! 3. The handler calls [`Store::advance`](store::Store::advance), which puts a command into a
//!    bounded queue. The committer takes all commands that wait, applies each by the one rule in
//!    [`Counter::advance`](domain::counter::Counter::advance), appends one frame to the journal (a
//!    write-ahead log) and syncs it once. Meanwhile the next commands gather: group commit.
//! 4. After the sync, and never before, the new values become visible to readers, and the replies
//!    go back to the workers, one wake-up for each.
//! 5. In the background the checkpointer writes committed records to the state (sled) and syncs it;
//!    a journal segment is deleted once a checkpoint and a verified backup cover it. Digests detect
//!    a corrupt state; the next start rebuilds it from backup and journal.
//!
//! # Modules
//!
//! A module imports only modules below it in this table.
//!
//! | module | job |
//! |---|---|
//! | `main.rs` | the binary: parse arguments, install telemetry, run, exit code |
//! | [`cli`] | the command line: arguments, commands, terminal |
//! | [`app`] | composition root: opens, serves and stops every part in order |
//! | [`top`], [`healthcheck`] | commands that look at a running server |
//! | [`config`] | settings from flags, environment and file, checked once |
//! | [`http`] | the server: connections, limits, TLS; routes, extractors, middleware, handlers |
//! | [`admin`] | commands for the running server, over the socket in its data directory |
//! | [`auth`] | API keys, passwords, rate limits; knows no HTTP |
//! | [`store`] | the contract of a store, and the embedded store that keeps it |
//! | [`telemetry`] | logs and metrics, each declared once |
//! | [`domain`] | counters, tenants, API keys and rate limits: valid values and the counter rule |
//!
//! # Decisions
//!
//! Each decision that a reader may question has a dated record in `docs/decisions/`, with reasons
//! and figures: hyper's connections under actix-web's application, a log buffer of our own, the
//! ops listener's own connection limit, and sled, which is used and verified.
//! `docs/architecture.md` has the glossary.

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
mod failpoint;
pub mod healthcheck;
pub mod http;
pub mod store;
pub mod telemetry;
pub mod top;
