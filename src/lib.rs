//! Odometer hands out integers that go up by one: durable, unique, consecutive, over HTTPS, for many tenants.
//!
//! **The promise:** every integer that was answered is on disk, unique, consecutive, and safe to ask for again.
//!
//! # The way of a request
//!
//! ```text
//! socket ─ edge (TLS, limits, one observe middleware) ─ api (route → parsed request) ─ auth (key → Caller) ─┐
//!                                                                                                           ▼
//!    answer ◄─ api (shape, status) ◄───────────── published durable value ◄── store: queue → committer → journal → one fdatasync
//!                                                                                          └─(later, off the path)→ sled checkpoint
//! ```
//!
//! 1. `edge` accepts a connection, shakes hands, and gives every request an id. One worker thread serves a connection from begin to end.
//! 2. `api::route` finds the route and what it needs; `auth` turns the key into a [`auth::Caller`] for that, which nothing else can make; the tenant's
//!    limit is asked.
//! 3. [`store::Store::advance`] puts the request into a bounded queue. The committer takes all that wait, decides each by [`counter::Counter::advance`],
//!    appends one frame to the journal and syncs it once; meanwhile the next requests gather.
//! 4. After the sync, and never before, the new values are published to readers and the answers travel back: one wake for each worker.
//! 5. Later and elsewhere the keeper writes the changes to sled, syncs, and says so in the journal; then journal segments go that a verified
//!    backup has too. Digests kept beside sled prove what it returns; a start rebuilds it from backup and journal if they do not.
//!
//! # The rooms
//!
//! Imports point down only: `app` > `top`, `healthcheck` > `admin`, `config`, `edge` > `api` > `auth` > `store` > `telemetry`, `tenant` > `rate`, `counter`, `moment`.
//!
//! | room | job |
//! |---|---|
//! | [`cli`], [`config`] | what was typed; what is true after checking |
//! | [`app`] | opens, binds, runs, drains: the only file that knows everything |
//! | [`edge`] | sockets, TLS, limits, the one middleware |
//! | [`api`] | routes, parameters, documents, the one table of errors |
//! | [`top`], [`healthcheck`] | commands that look at a running server |
//! | [`admin`] | the socket through which commands of the same machine reach the server |
//! | [`auth`] | keys, passwords, rate limits; knows no HTTP |
//! | [`store`] | what *committed* means; the embedded store below it |
//! | [`telemetry`] | logs and metrics, each declared once |
//! | [`tenant`], [`rate`], [`counter`], [`moment`] | pure types, the rule that makes the next value, and times as text |
//!
//! # Where this differs from the first design
//!
//! The HTTP library is hyper, not actix-web: the drain needs connections to be ended one by one (GOAWAY, `Connection: close`), the deadlines of a slow head
//! and an idle connection must differ, and an unreadable head must get a document like every other error. hyper gives the connection to us; actix keeps it.
//!
//! Log lines wait in a buffer of our own ([`telemetry`]), not in tracing-appender's channel, which allocates for each line, wakes its writer for every few of
//! them, and gives up after a second at the end; its daily files stay.
//!
//! The ops listener has places of its own, outside `--max-connections`: whoever looks after a server that is full must get in.

pub mod admin;
pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod counter;
pub mod edge;
pub mod healthcheck;
pub mod moment;
pub mod rate;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod top;
