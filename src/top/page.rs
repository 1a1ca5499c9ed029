//! The page of `/metrics`, read back.
//!
//! Job: [`Page::parse`], and questions to it: a value, a sum, a histogram's buckets. Invariant: what can not be read is left out, and asking for what is not
//! there is 0 or nothing. Must never: panic, whatever the text.

/// One series and its value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Page(Vec<Sample>);

/// Bounds and the number of samples up to each, in ascending order; the last bound is infinite.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Page {
    /// Reads Prometheus' text format.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of a metric's series whose labels `chosen` takes.
    pub(super) fn sum(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> f64 {
        self.named(name).filter(|sample| chosen(&Labels(&sample.labels))).map(|sample| sample.value).sum()
    }

    /// The value of a metric without labels, if it is there.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.named(name).next().map(|sample| sample.value)
    }

    /// The label of the metric's first series.
    pub(super) fn label(&self, name: &str, label: &str) -> String {
        self.named(name).next().map(|sample| Labels(&sample.labels).get(label).to_owned()).unwrap_or_default()
    }

    /// The buckets of a histogram, summed over the series that `chosen` takes.
    pub(super) fn buckets(&self, name: &str, chosen: impl Fn(&Labels<'_>) -> bool) -> Buckets {
        let mut buckets = Buckets::new();
        for sample in self.named(&format!("{name}_bucket")) {
            let labels = Labels(&sample.labels);
            let Some(bound) = labels.get("le").parse().ok().filter(|_| chosen(&labels)) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

/// The labels of one series.
pub(super) struct Labels<'a>(&'a [(String, String)]);

impl Labels<'_> {
    /// A label's value; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    Some(Sample { name: name.to_owned(), labels: labels(rest.strip_suffix('}')?)?, value })
}

/// `a="1",b="2"`, with backslashes before quotes, backslashes and line ends.
fn labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
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
        labels.push((name.trim_start_matches(',').to_owned(), value));
        text = &rest[end + 1..];
    }
    Some(labels)
}

/// The value below which so much of what came between two pages lies: as Prometheus' `histogram_quantile` finds it, evenly spread within a bucket. `None` if
/// nothing came.
pub(super) fn quantile(before: &Buckets, after: &Buckets, of: f64) -> Option<f64> {
    let earlier = |bound: f64| before.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
    let counts: Vec<_> = after.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code=\"200\",path=\"/a\"} 7
requests_total{code=\"500\",path=\"/say \\\"hi\\\", {you}\"} 2

seconds_bucket{path=\"/a\",le=\"0.1\"} 1
seconds_bucket{path=\"/a\",le=\"+Inf\"} 4
seconds_bucket{path=\"/a\",le=\"0.2\"} 3
seconds_bucket{path=\"/b\",le=\"0.1\"} 1
seconds_bucket{path=\"/b\",le=\"0.2\"} 1
seconds_bucket{path=\"/b\",le=\"+Inf\"} 1
up 1
";

    #[test]
    fn values_labels_and_buckets_are_read() {
        let page = Page::parse(TEXT);
        assert_eq!((page.value("up"), page.value("down")), (Some(1.0), None));
        assert_eq!(page.sum("requests_total", |_| true), 9.0);
        assert_eq!(page.sum("requests_total", |labels| labels.get("path") == "/say \"hi\", {you}"), 2.0);
        assert_eq!(page.label("requests_total", "code"), "200");
        assert_eq!(page.buckets("seconds", |_| true), [(0.1, 2.0), (0.2, 4.0), (f64::INFINITY, 5.0)]);
        assert_eq!(page.buckets("seconds", |labels| labels.get("path") == "/b")[0], (0.1, 1.0));
    }

    #[test]
    fn what_is_no_metric_is_left_out() {
        for text in ["", "x", "x{ 1", "x{a} 1", "x{a=\"} 1", "x{a=\"\\", "{} {}", "x y", "x{a=\"b\"} z"] {
            assert_eq!(Page::parse(text).value("x"), None, "{text}");
        }
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let before = vec![(1.0, 10.0), (2.0, 10.0), (f64::INFINITY, 10.0)];
        let after = vec![(1.0, 20.0), (2.0, 30.0), (f64::INFINITY, 30.0)];
        assert_eq!(quantile(&before, &after, 0.25), Some(0.5));
        assert_eq!(quantile(&before, &after, 0.75), Some(1.5));
        assert_eq!(quantile(&before, &before, 0.5), None);
        assert_eq!(quantile(&Buckets::new(), &vec![(1.0, 0.0), (f64::INFINITY, 1.0)], 0.5), Some(1.0));
    }
}
