//! `tracestate`: handed on as it came, or not at all.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::TRACESTATE;

/// The most entries there may be.
const MOST_ENTRIES: usize = 32;
/// The longest that is handed on, in bytes: the standard asks for 512 at least.
const LONGEST: usize = 8 * 1024;

/// What the headers say, several in one; `None` where it is nothing, or breaks a rule.
pub(super) fn read(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut whole = String::new();
    let mut keys: Vec<&str> = Vec::new();
    for value in headers.get_all(TRACESTATE) {
        for entry in entries(value)? {
            let (key, value) = entry.split_once('=')?;
            if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MOST_ENTRIES {
                return None;
            }
            keys.push(key);
            if !whole.is_empty() {
                whole.push(',');
            }
            whole.push_str(entry);
        }
    }
    (!whole.is_empty() && whole.len() <= LONGEST).then(|| whole.into())
}

/// Entries may be empty, and those aren't there.
fn entries(value: &HeaderValue) -> Option<impl Iterator<Item = &str>> {
    let text = value.to_str().ok()?;
    Some(text.split(',').map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| !entry.is_empty()))
}

/// A vendor's, or a tenant's at a vendor's.
fn is_key(key: &str) -> bool {
    let begins_well = key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let rest = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    begins_well && key.len() <= 256 && key.bytes().all(rest)
}

fn is_value(value: &str) -> bool {
    let printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(printable)
}
