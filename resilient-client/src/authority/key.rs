//! What an upstream is found by, and what it is called.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

#[cfg(feature = "hyper")]
use http::HeaderValue;

use crate::authority::Authority;

/// The longest name of an upstream, in bytes. A longer one is cut: names are kept in every event
/// and report, and keys may be anything.
pub(crate) const LONGEST_NAME: usize = 200;

/// What upstreams without a place are called together.
pub(crate) const OVERFLOW: &str = "overflow";

/// The part of an authority whose own state this is. A route and a key of the same text are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope<T> {
    /// A route that a policy names.
    Route(T),
    /// A key of the caller's.
    Key(T),
}

impl Scope<Arc<str>> {
    pub(crate) fn borrowed(&self) -> Scope<&Arc<str>> {
        match self {
            Self::Route(name) => Scope::Route(name),
            Self::Key(name) => Scope::Key(name),
        }
    }
}

impl Scope<&Arc<str>> {
    fn cloned(self) -> Scope<Arc<str>> {
        match self {
            Self::Route(name) => Scope::Route(Arc::clone(name)),
            Self::Key(name) => Scope::Key(Arc::clone(name)),
        }
    }
}

/// A key stands in quotes, so that it is never taken for a route, nor a line break in it for a
/// line's end.
impl<T: AsRef<str>> fmt::Display for Scope<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => f.write_str(name.as_ref()),
            Self::Key(name) => write!(f, "{:?}", name.as_ref()),
        }
    }
}

/// What an upstream is found by.
#[derive(Debug)]
pub(crate) struct Key {
    authority: Authority<'static>,
    /// `None` for the whole authority's.
    scope: Option<Scope<Arc<str>>>,
}

impl Key {
    pub(crate) fn new(authority: &Authority<'_>, scope: Option<Scope<&Arc<str>>>) -> Self {
        Self { authority: authority.clone().into_owned(), scope: scope.map(Scope::cloned) }
    }

    /// That of what upstreams without a place have in common.
    pub(crate) fn overflow() -> Self {
        Self { authority: Authority::nowhere(OVERFLOW), scope: None }
    }

    pub(crate) fn authority(&self) -> &Authority<'static> {
        &self.authority
    }

    pub(crate) fn scope(&self) -> Option<Scope<&Arc<str>>> {
        self.scope.as_ref().map(Scope::borrowed)
    }

    pub(crate) fn is(&self, authority: &Authority<'_>, scope: Option<Scope<&Arc<str>>>) -> bool {
        self.authority == *authority && self.scope() == scope
    }

    /// Its authority, followed by its route or key if it has one.
    pub(crate) fn name(&self) -> Arc<str> {
        match self.scope() {
            None => bounded(self.authority.to_string()),
            Some(scope) => bounded(format!("{} {}", self.authority, Scope::<&str>::of(scope))),
        }
    }

    /// What requests to it say in `Host`; `None` for the nameless.
    #[cfg(feature = "hyper")]
    pub(crate) fn host_header(&self) -> Option<HeaderValue> {
        self.authority.host_header()
    }
}

impl<'a> Scope<&'a str> {
    fn of(scope: Scope<&'a Arc<str>>) -> Self {
        match scope {
            Scope::Route(name) => Self::Route(name),
            Scope::Key(name) => Self::Key(name),
        }
    }
}

/// A name that is too long ends in an ellipsis and a hash of all of it, so that two of them stay
/// distinct.
fn bounded(name: String) -> Arc<str> {
    /// `…` and 16 digits.
    const TAIL: usize = 3 + 16;
    if name.len() <= LONGEST_NAME {
        return name.into();
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let mut end = LONGEST_NAME - TAIL;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let head = name.get(..end).unwrap_or_default();
    format!("{head}\u{2026}{:016x}", hasher.finish()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(scope: Option<Scope<&Arc<str>>>) -> Arc<str> {
        let uri = "http://users:3000/".parse().unwrap();
        Key::new(&Authority::of_uri(&uri), scope).name()
    }

    #[test]
    fn a_key_equal_to_a_routes_name_is_told_apart_from_it() {
        let text: Arc<str> = "GET /users".into();
        assert_eq!(&*name(Some(Scope::Route(&text))), "http://users:3000 GET /users");
        assert_eq!(&*name(Some(Scope::Key(&text))), "http://users:3000 \"GET /users\"");
        assert_ne!(Scope::Route(&text), Scope::Key(&text));
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let long = |end: &str| -> Arc<str> { format!("{}{end}", "ü".repeat(50_000)).into() };
        let (a, b) = (name(Some(Scope::Key(&long("a")))), name(Some(Scope::Key(&long("b")))));
        assert!(a.len() <= LONGEST_NAME && b.len() <= LONGEST_NAME, "{} {}", a.len(), b.len());
        assert_ne!(a, b);
        assert!(a.starts_with("http://users:3000 \"üü") && a.contains('…'), "{a}");
        assert_eq!(a, name(Some(Scope::Key(&long("a")))), "the same each time");
    }

    #[test]
    fn a_line_break_in_a_key_is_no_line_break_in_its_name() {
        assert_eq!(&*name(Some(Scope::Key(&"a\nb".into()))), "http://users:3000 \"a\\nb\"");
    }
}
