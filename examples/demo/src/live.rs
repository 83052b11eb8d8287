//! What stands under the table and is drawn anew every second: how far the run is, and both twins
//! side by side.
//!
//! It is written in place: up as many lines as it has, everything below erased, the next line of
//! the table, and itself again. No mode of the terminal is changed (no other screen, no hidden
//! cursor, no raw input), so there is nothing to put back when the demo is interrupted, panics or
//! is killed.
//!
//! Only on a terminal that can and is large enough; everywhere else there is the table alone, as in
//! a file.

mod view;

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};

use crate::Problem;
use crate::colour::Colours;

pub(crate) use self::view::{Spark, Standing, TwinStanding};

/// A narrower terminal would wrap it, and then it couldn't be written over.
const COLUMNS: u16 = 80;
/// Of a lower one it would take most.
const ROWS: u16 = 20;
/// Wider than this nothing more is to be seen.
const WIDEST: u16 = 120;

/// It, if it is there.
#[derive(Debug)]
pub(crate) struct Live {
    colours: Colours,
    unicode: bool,
    wanted: bool,
    /// How many lines are drawn.
    shown: usize,
}

impl Live {
    pub(crate) fn for_stdout(colours: Colours) -> Self {
        let variable = |name| std::env::var_os(name);
        let wanted = wanted(io::stdout().is_terminal(), variable("TERM").as_deref(), size());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
        Self { colours, unicode: is_unicode(locale.as_deref()), wanted, shown: 0 }
    }

    /// Prints a line of the table, and under it how things stand.
    pub(crate) fn say(&mut self, line: &str, standing: &Standing) -> Result<(), Problem> {
        // The window may have got another size.
        let size = if self.wanted { size().filter(|size| fits(*size)) } else { None };
        let drawn = size.map(|(columns, _)| {
            // The last column stays free: some terminals wrap when it is written.
            view::draw(standing, usize::from(columns.min(WIDEST)) - 1, self.colours, self.unicode)
        });
        let text = self.replaced(line, &drawn.unwrap_or_default());
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// What to write: the block that is shown gone, then the line, then the new block.
    fn replaced(&mut self, line: &str, block: &[String]) -> String {
        let mut text = self.erased();
        text.push_str(line);
        text.push('\n');
        for line in block {
            text.push_str(line);
            text.push('\n');
        }
        self.shown = block.len();
        text
    }

    fn erased(&mut self) -> String {
        match std::mem::take(&mut self.shown) {
            0 => String::new(),
            // Up so many lines, to the first column, and all below erased.
            lines => format!("\x1b[{lines}F\x1b[J"),
        }
    }
}

/// Whatever is said next finds an empty line where the block was.
impl Drop for Live {
    fn drop(&mut self) {
        let text = self.erased();
        let mut out = io::stdout().lock();
        // Nobody may be there to see it any more.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn wanted(is_terminal: bool, term: Option<&OsStr>, size: Option<(u16, u16)>) -> bool {
    is_terminal && term.is_some_and(|term| !term.is_empty() && term != "dumb") && size.is_some_and(fits)
}

const fn fits((columns, rows): (u16, u16)) -> bool {
    columns >= COLUMNS && rows >= ROWS
}

/// Whether the terminal shows more than ASCII.
fn is_unicode(locale: Option<&OsStr>) -> bool {
    locale.and_then(OsStr::to_str).is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// Columns and rows of the terminal.
#[cfg(unix)]
fn size() -> Option<(u16, u16)> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| (size.ws_col, size.ws_row))
}

#[cfg(not(unix))]
fn size() -> Option<(u16, u16)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live { colours: Colours::plain(), unicode: true, wanted: true, shown: 0 }
    }

    #[test]
    fn it_is_for_terminals_that_can_and_are_large_enough() {
        let of = |text: &'static str| Some(OsStr::new(text));
        assert!(wanted(true, of("xterm-256color"), Some((80, 24))));
        for (is_terminal, term, size) in [
            (false, of("xterm"), Some((200, 50))),
            (true, of("dumb"), Some((200, 50))),
            (true, None, Some((200, 50))),
            (true, of("xterm"), Some((79, 50))),
            (true, of("xterm"), Some((80, 19))),
            (true, of("xterm"), None),
        ] {
            assert!(!wanted(is_terminal, term, size), "{is_terminal} {term:?} {size:?}");
        }
        for (locale, unicode) in [("C.UTF-8", true), ("en_GB.utf8", true), ("C", false), ("", false)] {
            assert_eq!(is_unicode(of(locale)), unicode, "{locale}");
        }
        assert!(!is_unicode(None));
    }

    /// A terminal that knows two codes: what it shows after `text`.
    fn shown(text: &str) -> Vec<String> {
        let (mut lines, mut rest) = (vec![String::new()], text);
        while let Some(at) = rest.find(['\n', '\x1b']) {
            lines.last_mut().expect("a line").push_str(&rest[..at]);
            if let Some(code) = rest[at..].strip_prefix("\x1b[") {
                let (number, after) = code.split_once('F').expect("up");
                lines.truncate(lines.len() - number.parse::<usize>().expect("lines") - 1);
                rest = after.strip_prefix("\x1b[J").expect("erase below");
            } else {
                rest = &rest[at + 1..];
            }
            lines.push(String::new());
        }
        lines.last_mut().expect("a line").push_str(rest);
        lines
    }

    #[test]
    fn the_table_grows_above_the_block_and_at_the_end_the_block_is_gone() {
        let (mut live, block) = (live(), ["first".to_owned(), "second".to_owned()]);
        let mut text = live.replaced("one", &block);
        text += &live.replaced("two", &block);
        assert_eq!(shown(&text), ["one", "two", "first", "second", ""]);
        text += &live.replaced("three", &[]);
        text += &live.replaced("four", &block[..1]);
        assert_eq!(shown(&text), ["one", "two", "three", "four", "first", ""]);
        text += &live.erased();
        assert_eq!(shown(&text), ["one", "two", "three", "four", ""]);
        assert_eq!(live.erased(), "", "once");
    }

    #[test]
    fn without_a_block_there_are_no_codes() {
        let mut live = live();
        assert_eq!(live.replaced("one", &[]) + &live.replaced("two", &[]) + &live.erased(), "one\ntwo\n");
    }
}
