//! For operators and load balancers: alive, ready, measured.
//!
//! Job: `/livez`, `/readyz`, `/metrics`, `/openapi.json`. Invariant: *ready* means that an increment would be taken now.
//! Must never: need a key, or tell more than one word about the inside.

use hyper::StatusCode;

use super::document::{Answer, text};
use crate::store::{Health, Unavailable};
use crate::telemetry::Metrics;

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn livez() -> Answer {
    text(StatusCode::OK, PLAIN, "alive\n")
}

pub(super) fn readyz(health: Health, draining: bool) -> Answer {
    let (status, word) = match health {
        _ if draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Health::Ready => (StatusCode::OK, "ready"),
        Health::Unavailable(Unavailable::DiskLow) => (StatusCode::SERVICE_UNAVAILABLE, "disk_low"),
        Health::Unavailable(Unavailable::Overloaded) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Health::Unavailable(Unavailable::Closing) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Health::Poisoned => (StatusCode::SERVICE_UNAVAILABLE, "poisoned"),
    };
    text(status, PLAIN, format!("{word}\n"))
}

pub(super) fn metrics(metrics: &Metrics) -> Answer {
    text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
}

pub(super) fn openapi() -> Answer {
    text(StatusCode::OK, "application/json", super::openapi::json())
}
