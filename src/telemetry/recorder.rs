//! The Prometheus recorder of one server.
//!
//! Job: [`Recorder`] describes every metric, registers handles, and acts as the local recorder of
//! libraries that record through the `metrics` facade.
//! Invariant: it is never the global recorder, so two servers in one process do not share metrics.
//! Must never: register a metric that `definitions.rs` does not have.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::definitions::{self, Kind, MetricDef};

static METADATA: Metadata<'static> = Metadata::new("odometer", Level::INFO, None);

/// See the module's documentation. Clones share the metrics.
#[derive(Clone)]
pub(super) struct Recorder(Arc<PrometheusRecorder>);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in definitions::ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .expect("every histogram is defined with at least one bucket");
            }
        }
        let recorder = builder.build_recorder();
        for metric in definitions::ALL {
            let (name, unit, help) = (metric.name.into(), Some(metric.unit), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
            }
        }
        Self(Arc::new(recorder))
    }

    pub(super) fn handle(&self) -> PrometheusHandle {
        self.0.handle()
    }

    /// Calls `run` with this recorder as the facade's recorder of the thread.
    pub(super) fn with_local_recorder(&self, run: impl FnOnce()) {
        metrics::with_local_recorder(&*self.0, run);
    }

    pub(super) fn counter(&self, metric: &MetricDef, labels: Vec<Label>) -> Counter {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.0.register_counter(&Key::from_parts(metric.name, labels), &METADATA)
    }

    pub(super) fn gauge(&self, metric: &MetricDef, labels: Vec<Label>) -> Gauge {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.0.register_gauge(&Key::from_parts(metric.name, labels), &METADATA)
    }

    pub(super) fn histogram(&self, metric: &MetricDef, labels: Vec<Label>) -> Histogram {
        debug_assert!(matches!(metric.kind, Kind::Histogram(_)), "{}", metric.name);
        self.0.register_histogram(&Key::from_parts(metric.name, labels), &METADATA)
    }
}

/// One label whose value is one of a fixed set.
pub(super) fn label(key: &'static str, value: &'static str) -> Vec<Label> {
    vec![Label::from_static_parts(key, value)]
}
