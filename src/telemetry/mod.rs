//! Telemetry: what the process says about itself, as log lines and as metrics.
//!
//! Job: install the logs once, declare every metric once, and hand out the handles that the two edges (the network's
//! observer and the stores) record through.
//! Invariant: nothing here waits for a disk, a terminal or a scraper while a request waits; what cannot be kept is
//! dropped and counted.
//! Must never: know a route, a tenant or a store by name, or decide what is worth saying. Callers decide that.
//!
//! The room:
//!
//! ```text
//! logs.rs       install, level reload, panic hook, flush         (what main holds)
//!   line.rs, escape.rs  one event -> one line, ECS JSON or text  (on the path of each request: no allocation when warm)
//!   sink.rs     lines gather -> one write to stdout or a file; counts loss  (on the log writer's thread)
//! metrics.rs    lazily registered tables, render               (what app and edge hold)
//!   handles.rs    what store and listeners record through        (registered once)
//!   snapshot.rs   the same as data, for commands               (what `odometer top` asks for)
//!   recorder.rs, catalogue.rs  name, kind, unit, help and buckets of every metric
//! seldom.rs     events that peers can cause at will, once a second
//! ```

mod definitions;
mod ecs_layer;
mod escape;
mod handles;
mod log_throttle;
pub mod logs;
pub mod metrics;
mod recorder;
mod sink;
mod snapshot;

pub use handles::{ConnectionMetrics, StoreMetrics};
pub use log_throttle::LogThrottle;
pub use logs::{LogDrops, LogFormat, LogOptions, Logs, install};
pub use metrics::{
    AUTH_FAILURE_REASONS, METHODS, Metrics, RATE_LIMIT_SCOPES, auth_failure_index, method_index,
};
pub use snapshot::{Sample, Snapshot};
