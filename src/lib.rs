//! Odometer hands out integers that go up by one: durable, unique, consecutive, over HTTPS, for many tenants.
//!
//! **The promise:** every integer that was answered is on disk, unique, consecutive, and safe to ask for again.
//!
//! # The way of a request
//!
//! ```text
//! socket ─ http (TLS, limits, hyper's HTTP/1.1 and HTTP/2) ─ bridge ─ actix-web's App (middleware → route → extractors) ─ auth (key → Caller) ─┐
//!                                                                                                                                             ▼
//!    response ◄─ http (document, status) ◄──────── published durable value ◄── store: queue → committer → journal → one fdatasync
//!                                                                                          └─(later, off the path)→ sled checkpoint
//! ```
//!
//! 1. `http` accepts a connection and shakes hands. One worker thread serves a connection from begin to end, with an App of its own; a bridge
//!    hands each request to the App and its response back. The App's middleware gives every request an id.
//! 2. actix-web finds the route ([`http::routes`]); the handler's extractors run in their order. The first turns the key into a [`auth::Caller`] for
//!    what the route needs, which nothing else can make, and asks the tenant's rate limit.
//! 3. [`store::Store::advance`] puts the request into a bounded queue. The committer takes all that wait, decides each by [`counter::Counter::advance`],
//!    appends one frame to the journal and syncs it once; meanwhile the next requests gather.
//! 4. After the sync, and never before, the new values are published to readers and the answers travel back: one wake for each worker.
//! 5. Later and elsewhere the keeper writes the changes to sled, syncs, and says so in the journal; then journal segments go that a verified
//!    backup has too. Digests kept beside sled prove what it returns; a start rebuilds it from backup and journal if they do not.
//!
//! # The rooms
//!
//! Imports point down only: `app` > `top`, `healthcheck` > `config`, `http` > `admin` > `auth` > `store` > `telemetry`, `tenant` > `rate`, `counter`, `moment`.
//!
//! | room | job |
//! |---|---|
//! | [`cli`], [`config`] | what was typed; what is true after checking |
//! | [`app`] | opens, binds, runs, drains: the only file that knows everything |
//! | [`http`] | connections, TLS, limits; the application: routes, extractors, middleware, handlers, the one table of errors |
//! | [`top`], [`healthcheck`] | commands that look at a running server |
//! | [`admin`] | commands that ask the running server through its socket in the data folder: HTTP's client, and the rows both ends send |
//! | [`auth`] | keys, passwords, rate limits; knows no HTTP |
//! | [`store`] | what *committed* means; the embedded store below it |
//! | [`telemetry`] | logs and metrics, each declared once |
//! | [`tenant`], [`rate`], [`counter`], [`moment`] | pure types, the rule that makes the next value, and times as text |
//!
//! # Why it is built so
//!
//! `docs/decisions/` has what was decided and why: hyper's connections under actix-web's application, a log buffer of our own, the ops listener's own
//! connection limit, and sled, which is kept and distrusted. `docs/architecture.md` has the glossary.

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod healthcheck;
pub mod http;
pub mod store;
pub mod telemetry;
pub mod top;
