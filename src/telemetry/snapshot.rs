//! The metrics at one time, as data.
//!
//! Job: [`Snapshot`], parsed from the Prometheus text format, since the exporter's library offers
//! the values in no other form. The admin socket sends it as JSON.
//! Invariant: a line that cannot be parsed is skipped, and so is a value that JSON cannot express
//! (infinite or NaN).
//! Must never: panic, whatever the input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// The value of one time series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The labels of the series.
    pub labels: BTreeMap<String, String>,
    /// The value; an integer is serialized without a fraction.
    #[serde(serialize_with = "write_number")]
    pub value: f64,
}

/// All time series, by metric name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// A histogram is three metrics, as in Prometheus: `_bucket`, `_sum` and `_count`.
    pub metrics: BTreeMap<String, Vec<Sample>>,
}

impl Snapshot {
    /// Parses the Prometheus text format.
    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = BTreeMap::<String, Vec<Sample>>::new();
        for (name, sample) in text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
        {
            metrics.entry(name.to_owned()).or_default().push(sample);
        }
        Self { metrics }
    }

    /// The series of a metric; empty if there is no such metric.
    pub fn series(&self, name: &str) -> &[Sample] {
        self.metrics.get(name).map_or(&[], Vec::as_slice)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn write_number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}

fn sample(line: &str) -> Option<(&str, Sample)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some((series, Sample { labels: BTreeMap::new(), value }));
    };
    Some((name, Sample { labels: labels(rest.strip_suffix('}')?)?, value }))
}

/// Parses `a="1",b="2"`; quotes, backslashes and newlines in values are escaped with a backslash.
fn labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = &rest[end + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code=\"200\",path=\"/a\"} 7
requests_total{code=\"500\",path=\"/say \\\"hi\\\", {you}\"} 2

seconds_bucket{path=\"/a\",le=\"+Inf\"} 4
seconds_sum 0.25
up 1
worst NaN
";

    #[test]
    fn series_and_labels_are_read_and_written_as_json() {
        let snapshot = Snapshot::parse(TEXT);
        let json = serde_json::to_value(&snapshot).unwrap();
        let expected = serde_json::json!({ "metrics": {
            "requests_total": [
                { "labels": { "code": "200", "path": "/a" }, "value": 7 },
                { "labels": { "code": "500", "path": "/say \"hi\", {you}" }, "value": 2 },
            ],
            "seconds_bucket": [{ "labels": { "le": "+Inf", "path": "/a" }, "value": 4 }],
            "seconds_sum": [{ "labels": {}, "value": 0.25 }],
            "up": [{ "labels": {}, "value": 1 }],
        } });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Snapshot>(json).unwrap(), snapshot);
        assert_eq!((snapshot.series("up").len(), snapshot.series("down").len()), (1, 0));
    }

    #[test]
    fn lines_that_are_no_metric_are_skipped() {
        for text in [
            "",
            "x",
            "x{ 1",
            "x{a} 1",
            "x{a=\"} 1",
            "x{a=\"\\",
            "{} {}",
            "x y",
            "x{a=\"b\"} z",
            "x +Inf",
        ] {
            assert_eq!(Snapshot::parse(text).series("x"), [], "{text}");
        }
    }
}
