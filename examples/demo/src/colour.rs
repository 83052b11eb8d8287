//! Colour, when there is a terminal to show it and nobody asked for none.

use std::ffi::OsStr;
use std::io::IsTerminal;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Colours(bool);

impl Colours {
    /// For standard output: colour on a terminal that can, unless `NO_COLOR` is set to anything
    /// (<https://no-color.org>).
    pub(crate) fn for_stdout() -> Self {
        Self::wanted(
            std::io::stdout().is_terminal(),
            std::env::var_os("NO_COLOR").as_deref(),
            std::env::var_os("TERM").as_deref(),
        )
    }

    fn wanted(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        Self(is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb"))
    }

    #[cfg(test)]
    pub(crate) const fn on() -> Self {
        Self(true)
    }

    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self(false)
    }

    /// `text`, which must already have its width: the codes round it would be counted.
    pub(crate) fn apply(self, colour: Colour, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        let of = |text: &'static str| Some(OsStr::new(text));
        for (is_terminal, no_color, term, coloured) in [
            (true, None, None, true),
            (true, of(""), of("xterm"), true),
            (false, None, of("xterm"), false),
            (true, of("1"), of("xterm"), false),
            (true, None, of("dumb"), false),
        ] {
            let shown = Colours::wanted(is_terminal, no_color, term).apply(Colour::Red, "x");
            assert_eq!(shown != "x", coloured, "{is_terminal} {no_color:?} {term:?}");
        }
    }
}
