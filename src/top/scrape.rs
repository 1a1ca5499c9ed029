//! Queries on one scrape of a server's metrics.
//!
//! Job: a value, a sum or a histogram's buckets of a [`Scrape`], and the [`quantile`] between two
//! of them.
//! Invariant: a query for an absent metric returns 0, `None` or an empty list.
//! Must never: parse the Prometheus text format; the server sends data.

use std::collections::BTreeMap;

use crate::telemetry::Snapshot;

/// The metrics at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape(pub(super) Snapshot);

/// Upper bounds and the number of samples up to each, ascending; the last bound is infinite.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Scrape {
    /// The sum over the series of a metric whose labels `chosen` selects.
    pub(super) fn sum(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> f64 {
        let series = self.0.series(name).iter();
        series.filter(|sample| chosen(&Labels(&sample.labels))).map(|sample| sample.value).sum()
    }

    /// The value of a metric without labels; `None` if it is absent.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.0.series(name).first().map(|sample| sample.value)
    }

    /// A label of the metric's first series; empty if it is absent.
    pub(super) fn label(&self, name: &str, label: &str) -> String {
        let first = self.0.series(name).first();
        first.map(|sample| Labels(&sample.labels).get(label).to_owned()).unwrap_or_default()
    }

    /// The buckets of a histogram, summed over the series that `chosen` selects.
    pub(super) fn buckets(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> Buckets {
        let mut buckets = Buckets::new();
        for sample in self.0.series(&format!("{name}_bucket")) {
            let labels = Labels(&sample.labels);
            let Some(bound) = labels.get("le").parse().ok().filter(|_| chosen(&labels)) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }
}

/// The labels of one series.
pub(super) struct Labels<'a>(&'a BTreeMap<String, String>);

impl Labels<'_> {
    /// A label's value; empty if it is absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The quantile `of` (0 to 1) of the samples between two scrapes, estimated as Prometheus'
/// `histogram_quantile` does: samples are assumed to be spread evenly within a bucket. `None` if
/// there are no samples.
pub(super) fn quantile(before: &Buckets, after: &Buckets, of: f64) -> Option<f64> {
    let earlier = |bound: f64| {
        before.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count)
    };
    let counts: Vec<_> =
        after.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
    let (_, all) = *counts.last()?;
    if all <= 0.0 {
        return None;
    }
    let rank = of * all;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= rank {
            // Of a sample in the infinite bucket only the lower bound is known.
            let within = if count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some(if bound.is_finite() { low + (bound - low) * within } else { low });
        }
        (low, below) = (bound, count);
    }
    Some(low)
}

/// A series of a test: name, labels and value.
#[cfg(test)]
type Series<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[cfg(test)]
impl Scrape {
    /// A scrape with these series.
    pub(super) fn of(series: &[Series<'_>]) -> Self {
        let mut scrape = Snapshot::default();
        for (name, labels, value) in series {
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let sample = crate::telemetry::Sample { labels, value: *value };
            scrape.metrics.entry((*name).to_owned()).or_default().push(sample);
        }
        Self(scrape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_labels_and_buckets_are_found() {
        let bucket = "seconds_bucket";
        let scrape = Scrape::of(&[
            ("requests_total", &[("code", "200"), ("path", "/a")], 7.0),
            ("requests_total", &[("code", "500"), ("path", "/b")], 2.0),
            (bucket, &[("path", "/a"), ("le", "0.1")], 1.0),
            (bucket, &[("path", "/a"), ("le", "+Inf")], 4.0),
            (bucket, &[("path", "/a"), ("le", "0.2")], 3.0),
            (bucket, &[("path", "/b"), ("le", "0.1")], 1.0),
            (bucket, &[("path", "/b"), ("le", "0.2")], 1.0),
            (bucket, &[("path", "/b"), ("le", "+Inf")], 1.0),
            ("up", &[], 1.0),
        ]);
        assert_eq!((scrape.value("up"), scrape.value("down")), (Some(1.0), None));
        assert_eq!(scrape.sum("requests_total", |_| true), 9.0);
        assert_eq!(scrape.sum("requests_total", |labels| labels.get("path") == "/b"), 2.0);
        assert_eq!(
            (scrape.label("requests_total", "code"), scrape.label("up", "code")),
            ("200".to_owned(), String::new())
        );
        assert_eq!(
            scrape.buckets("seconds", |_| true),
            [(0.1, 2.0), (0.2, 4.0), (f64::INFINITY, 5.0)]
        );
        assert_eq!(scrape.buckets("seconds", |labels| labels.get("path") == "/b")[0], (0.1, 1.0));
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let before = vec![(1.0, 10.0), (2.0, 10.0), (f64::INFINITY, 10.0)];
        let after = vec![(1.0, 20.0), (2.0, 30.0), (f64::INFINITY, 30.0)];
        assert_eq!(quantile(&before, &after, 0.25), Some(0.5));
        assert_eq!(quantile(&before, &after, 0.75), Some(1.5));
        assert_eq!(quantile(&before, &before, 0.5), None);
        assert_eq!(
            quantile(&Buckets::new(), &vec![(1.0, 0.0), (f64::INFINITY, 1.0)], 0.5),
            Some(1.0)
        );
    }
}
