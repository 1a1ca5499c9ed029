//! Telemetry: logs and metrics of the process.
//!
//! ```text
//! logs.rs             install, level reload, panic hook, flush
//!   ecs_layer.rs, escape.rs  one event → one line, ECS JSON or text; on the request's thread
//!   sink.rs           bounded queue → batched writes to stdout or a file; on the writer's thread
//!   log_throttle.rs   at most one event per second of a kind that a peer can cause
//! metrics.rs          the metrics of one server, and their rendering
//!   definitions.rs    name, kind, unit, help and buckets of every metric
//!   recorder.rs       the Prometheus recorder behind them
//!   handles.rs        handles for the store and the listeners
//!   snapshot.rs       the metrics as data, for `odometer top`
//! ```
//! Job: install the logs once, define every metric once, and hand out handles to record through.
//! Invariant: no request waits here for a disk, a terminal or a scraper; a log line that does not
//! fit into the queue is dropped and counted.
//! Must never: know a route, a tenant or a store by name, or decide what to log; callers do that.

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

pub use definitions::names_and_types;
pub use handles::{ConnectionMetrics, StoreMetrics};
pub use log_throttle::LogThrottle;
pub use logs::{LogDrops, LogFormat, LogOptions, Logs, install};
pub use metrics::{
    AUTH_FAILURE_REASONS, METHODS, Metrics, RATE_LIMIT_SCOPES, auth_failure_index, method_index,
};
pub use snapshot::{Sample, Snapshot};
