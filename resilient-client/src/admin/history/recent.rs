//! The last events that an operator wants told, each with a number that a reader can go on from.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

/// How many are kept.
pub(crate) const KEPT: usize = 1024;

/// Something that happened, for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// One more than the one before it.
    pub(crate) id: u64,
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    /// Whose client.
    pub(crate) client: Arc<str>,
    pub(crate) upstream: Arc<str>,
    /// A short fixed name, such as `breaker`.
    pub(crate) kind: &'static str,
    /// In words.
    pub(crate) text: String,
}

/// The last events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    /// The number of the newest there ever was.
    newest: u64,
}

/// What came after an event that a reader has seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Since<T> {
    /// These, oldest first.
    All(T),
    /// These, and others before them that aren't kept any more.
    Gap(T),
}

impl Recent {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.newest += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { id: self.newest, ..entry });
    }

    /// The number of the newest.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// What came after the one numbered `seen`. A number that is still to come is another
    /// process's: everything is new to its reader.
    pub(crate) fn since(&self, seen: Option<u64>) -> Since<Vec<Entry>> {
        let foreign = seen.is_some_and(|seen| seen > self.newest);
        let after = seen.filter(|_| !foreign).unwrap_or(0);
        let new: Vec<_> = self.entries.iter().filter(|entry| entry.id > after).cloned().collect();
        let missed = seen.is_some() && self.entries.front().is_some_and(|oldest| oldest.id > after + 1);
        if missed || foreign { Since::Gap(new) } else { Since::All(new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        let name: Arc<str> = "users".into();
        Entry {
            id: 0,
            at: 0,
            client: Arc::clone(&name),
            upstream: name,
            kind: "breaker",
            text: text.to_owned(),
        }
    }

    fn ids(since: Since<Vec<Entry>>) -> Since<Vec<u64>> {
        let ids = |entries: Vec<Entry>| entries.iter().map(|entry| entry.id).collect();
        match since {
            Since::All(entries) => Since::All(ids(entries)),
            Since::Gap(entries) => Since::Gap(ids(entries)),
        }
    }

    #[test]
    fn a_reader_goes_on_where_it_stopped() {
        let mut recent = Recent::default();
        assert_eq!(ids(recent.since(Some(0))), Since::All(vec![]));
        for text in ["a", "b", "c"] {
            recent.push(entry(text));
        }
        assert_eq!(ids(recent.since(Some(0))), Since::All(vec![1, 2, 3]));
        assert_eq!(ids(recent.since(Some(2))), Since::All(vec![3]));
        assert_eq!(ids(recent.since(Some(3))), Since::All(vec![]));
    }

    #[test]
    fn who_was_away_too_long_is_told_of_the_gap() {
        let mut recent = Recent::default();
        for _ in 0..=KEPT {
            recent.push(entry("again"));
        }
        assert!(matches!(recent.since(Some(1)), Since::All(ref all) if all.len() == KEPT));
        recent.push(entry("once more"));
        assert!(matches!(recent.since(Some(1)), Since::Gap(ref all) if all.len() == KEPT));
        assert!(matches!(recent.since(Some(0)), Since::Gap(_)), "one that has seen nothing, too");
        assert!(matches!(recent.since(None), Since::All(_)), "who asks for all that there is");
    }

    #[test]
    fn a_number_of_another_process_is_a_gap() {
        let mut recent = Recent::default();
        recent.push(entry("a"));
        assert_eq!(ids(recent.since(Some(900))), Since::Gap(vec![1]));
    }
}
