//! Paging by cursor: a page starts after the last row of the one before, so rows added meanwhile
//! shift nothing.
//!
//! A dozen lines of arithmetic; no library is smaller.

use crate::{extract::canonical_id, problem::Problem};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 100;

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most rows on the page, 1 to 100.
    pub limit: i64,
    /// The id of the row that the page starts after; `None` for the first page.
    pub after: Option<String>,
}

impl Page {
    /// Checks what the query string asked for: 400 for a limit out of range or a cursor that is no
    /// id.
    pub fn new(limit: Option<i64>, after: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad_request(format!("limit must be from 1 to {MAX_LIMIT}.")));
        }
        let after = match after {
            None => None,
            Some(raw) => Some(canonical_id(raw).ok_or_else(|| Problem::bad_request("after must be an id."))?),
        };
        Ok(Self { limit, after })
    }

    /// How many rows to read: one more than fits, to know whether another page follows.
    pub fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts the rows to the page; returns the cursor of the next page, if there is one.
    pub fn cut<T>(&self, rows: &mut Vec<T>, id: impl Fn(&T) -> &str) -> Option<String> {
        let limit = self.limit as usize;
        if rows.len() <= limit {
            return None;
        }
        rows.truncate(limit);
        rows.last().map(|row| id(row).to_owned())
    }
}
