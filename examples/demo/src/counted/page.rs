//! `/metrics`, as far as the comparison needs it.

use std::collections::BTreeMap;

/// How often, by something.
pub(super) type Counts = BTreeMap<String, u64>;

/// Every series, with its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Page(Vec<(String, u64)>);

impl Page {
    pub(super) fn read(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            // Counts are whole; what isn't, a sum of durations say, is nothing to compare.
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(series.filter_map(read).collect())
    }

    /// The series of this name, summed up by the first of these labels that each has. One that has
    /// none of them is counted under nothing.
    pub(super) fn by(&self, name: &str, labels: &[&str]) -> Counts {
        let mut counts = Counts::new();
        for (series, value) in &self.0 {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            if found == name && *value > 0 {
                let key = labels.iter().find_map(|label| value_of(rest, label)).unwrap_or_default();
                *counts.entry(key.to_owned()).or_default() += value;
            }
        }
        counts
    }

    pub(super) fn sum(&self, name: &str) -> u64 {
        self.by(name, &[]).values().sum()
    }
}

/// A label's value. None of those that are asked for holds a quote.
fn value_of<'a>(labels: &'a str, label: &str) -> Option<&'a str> {
    let mut found = labels.match_indices(label);
    found.find_map(|(at, _)| {
        let begins = at == 0 || labels[..at].ends_with(',');
        let value = labels[at + label.len()..].strip_prefix("=\"").filter(|_| begins)?;
        value.split('"').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_name_are_summed_up_by_a_label() {
        let page = Page::read(
            "# HELP calls_total Calls\n\
             calls_total{server_port=\"1\",reason=\"timeout\"} 2\n\
             calls_total{reason=\"timeout\"} 3\n\
             calls_total{other_reason=\"timeout\",reason=\"connect\"} 4\n\
             calls_total{other_reason=\"x\"} 0\n\
             calls 5\n\
             calls_sum{reason=\"timeout\"} 0.5\n",
        );
        let expected = [("connect", 4), ("timeout", 5)].map(|(key, count)| (key.to_owned(), count));
        assert_eq!(page.by("calls_total", &["reason"]), Counts::from(expected));
        assert_eq!((page.sum("calls_total"), page.sum("calls"), page.sum("calls_sum")), (9, 5, 0));
    }
}
