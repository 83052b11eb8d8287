//! What `/metrics` says, every 15 seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How often it is asked.
pub(crate) const INTERVAL_SECS: u64 = 15;

/// Every series, with its value at each time; `None` before it was there.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    samples: usize,
    series: BTreeMap<Series, Vec<Option<f64>>>,
}

/// A name and its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Series {
    /// As the text format of Prometheus has it.
    fn parse(text: &str) -> Self {
        let Some((name, labels)) = text.split_once('{') else {
            return Self { name: text.to_owned(), labels: BTreeMap::new() };
        };
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (key, value) = label.split_once("=\"").expect("a label");
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        });
        Self { name: name.to_owned(), labels: labels.collect() }
    }
}

impl Recording {
    /// What a page says now.
    pub(crate) fn add(&mut self, page: &str) {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            let values = self.series.entry(Series::parse(series)).or_default();
            values.resize(self.samples, None);
            values.push(Some(value.parse().expect("a number")));
        }
        self.samples += 1;
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.keys()
    }

    /// How long it is.
    pub(crate) fn minutes(&self) -> u64 {
        self.samples as u64 * INTERVAL_SECS / 60
    }

    /// As promtool's tests have input, what stays the same and what grows evenly written short; the
    /// series of these names alone, of the service `job`.
    pub(crate) fn input(&self, job: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        for (series, values) in self.series.iter().filter(|(series, _)| wanted(&series.name)) {
            let labels: Vec<_> =
                series.labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            let _ = writeln!(text, "      - series: '{}{{job=\"{job}\",{}}}'", series.name, labels.join(","));
            let _ = writeln!(text, "        values: '{}'", shortened(values, self.samples));
        }
        text
    }
}

fn shortened(values: &[Option<f64>], samples: usize) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < samples {
        let first = values.get(at).copied().flatten();
        let step = |n: usize| Some(values.get(n + 1).copied().flatten()? - values.get(n).copied().flatten()?);
        // Sums of durations grow by something else each time; nobody asks for them.
        let (mut end, by) = (at, step(at));
        while end + 1 < samples && (by.is_some() || first.is_none()) && {
            let next = values.get(end + 1).copied().flatten();
            if first.is_none() { next.is_none() } else { step(end) == by }
        } {
            end += 1;
        }
        let times = end - at;
        parts.push(match (first, by) {
            (None, _) => format!("_x{}", times + 1),
            (Some(first), Some(by)) if times > 0 => format!("{first}{by:+}x{times}"),
            (Some(first), _) => first.to_string(),
        });
        at = end + 1;
    }
    parts.join(" ")
}
