//! What `top` asks of one look at a server's metrics.
//!
//! Job: questions to a [`Scrape`]: a value, a sum, a histogram's buckets; and the [`quantile`]
//! between two of them. Invariant: asking for what is not there is 0 or nothing. Must never: know
//! the text that Prometheus reads; the server sends data.

use std::collections::BTreeMap;

use crate::telemetry::Snapshot;

/// The metrics at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape(pub(super) Snapshot);

/// Bounds and the number of samples up to each, in ascending order; the last bound is infinite.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Scrape {
    /// The sum of a metric's series whose labels `chosen` takes.
    pub(super) fn sum(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> f64 {
        let series = self.0.series(name).iter();
        series.filter(|sample| chosen(&Labels(&sample.labels))).map(|sample| sample.value).sum()
    }

    /// The value of a metric without labels, if it is there.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.0.series(name).first().map(|sample| sample.value)
    }

    /// The label of the metric's first series.
    pub(super) fn label(&self, name: &str, label: &str) -> String {
        let first = self.0.series(name).first();
        first.map(|sample| Labels(&sample.labels).get(label).to_owned()).unwrap_or_default()
    }

    /// The buckets of a histogram, summed over the series that `chosen` takes.
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
    /// A label's value; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// The value below which so much of what came between two pages lies: as Prometheus'
/// `histogram_quantile` finds it, evenly spread within a bucket. `None` if nothing came.
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
            // Beyond the last bound nothing is known but that.
            let within = if count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some(if bound.is_finite() { low + (bound - low) * within } else { low });
        }
        (low, below) = (bound, count);
    }
    Some(low)
}

/// A series as tests write it: name, labels and value.
#[cfg(test)]
type Series<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

#[cfg(test)]
impl Scrape {
    /// A page of these series.
    pub(super) fn of(series: &[Series<'_>]) -> Self {
        let mut page = Snapshot::default();
        for (name, labels, value) in series {
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let sample = crate::telemetry::Sample { labels, value: *value };
            page.metrics.entry((*name).to_owned()).or_default().push(sample);
        }
        Self(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_labels_and_buckets_are_found() {
        let bucket = "seconds_bucket";
        let page = Scrape::of(&[
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
        assert_eq!((page.value("up"), page.value("down")), (Some(1.0), None));
        assert_eq!(page.sum("requests_total", |_| true), 9.0);
        assert_eq!(page.sum("requests_total", |labels| labels.get("path") == "/b"), 2.0);
        assert_eq!(
            (page.label("requests_total", "code"), page.label("up", "code")),
            ("200".to_owned(), String::new())
        );
        assert_eq!(
            page.buckets("seconds", |_| true),
            [(0.1, 2.0), (0.2, 4.0), (f64::INFINITY, 5.0)]
        );
        assert_eq!(page.buckets("seconds", |labels| labels.get("path") == "/b")[0], (0.1, 1.0));
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
