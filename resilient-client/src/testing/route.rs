//! Which requests a script's answers are for.

use std::collections::VecDeque;
use std::fmt;

use http::{HeaderName, Method};
use serde::Serialize;

use super::answer::Answer;
use crate::fault::wire::Asked;
use crate::policy::route::Pattern;

/// Requests by method and path, and what comes of each in turn. Made by [`get`] and its like.
#[derive(Debug)]
#[must_use = "a route does nothing until a script has it"]
pub struct Route {
    said: String,
    /// `None` for every path.
    pattern: Option<Pattern>,
    host: Option<String>,
    headers: Vec<(HeaderName, String)>,
    answers: VecDeque<Answer>,
    always: Option<Answer>,
    given: usize,
}

macro_rules! routes {
    ($($name:ident $method:literal)*) => {
        $(
            #[doc = concat!("What is asked with `", $method, "` of a path such as `/users/1`, or of those")]
            /// like `/users/{id}`. The query isn't looked at.
            ///
            /// # Panics
            /// When no path can be like that.
            #[track_caller]
            pub fn $name(path: &str) -> Route {
                Route::new($method, path)
            }
        )*
    };
}

routes! { get "GET" head "HEAD" post "POST" put "PUT" patch "PATCH" delete "DELETE" }

/// Whatever is asked.
pub fn anything() -> Route {
    Route::of("anything".to_owned(), None)
}

impl Route {
    fn of(said: String, pattern: Option<Pattern>) -> Self {
        let (answers, headers) = (VecDeque::new(), Vec::new());
        Self { said, pattern, host: None, headers, answers, always: None, given: 0 }
    }

    /// What is asked with this method, or with any (`*`), of a path such as `/users/1`, or of those
    /// like `/users/{id}`. The query isn't looked at.
    ///
    /// # Panics
    /// When that is no method in capitals, or no path can be like that.
    #[track_caller]
    pub fn new(method: &str, path: &str) -> Self {
        match Pattern::new(method, path) {
            Ok(pattern) => Self::of(format!("{method} {path}"), Some(pattern)),
            Err(invalid) => panic!("no route: {invalid}"),
        }
    }

    /// Only what goes to this host (without a port), by its URL or its `Host` header.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self.said = format!("{} at {host}", self.said);
        self
    }

    /// Only what has this header.
    ///
    /// # Panics
    /// When there is no header of that name.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Ok(known) = HeaderName::try_from(name) else { panic!("no header's name: {name}") };
        self.headers.push((known, value.to_owned()));
        self.said = format!("{} with {name}: {value}", self.said);
        self
    }

    /// The next is answered so.
    pub fn then(mut self, answer: Answer) -> Self {
        self.answers.push_back(answer);
        self
    }

    /// The next so many are answered so.
    pub fn times(mut self, count: usize, answer: &Answer) -> Self {
        self.answers.extend(std::iter::repeat_n(answer, count).cloned());
        self
    }

    /// The next so many are answered with a 503.
    pub fn fails(self, count: usize) -> Self {
        self.times(count, &Answer::status(503))
    }

    /// The next is answered with a 200 and a value as JSON.
    ///
    /// # Panics
    /// When the value has no JSON.
    #[track_caller]
    pub fn then_json(self, value: &(impl Serialize + ?Sized)) -> Self {
        self.then(Answer::json(200, value))
    }

    /// The next is answered with a 200 and a text.
    #[track_caller]
    pub fn then_text(self, text: impl Into<String>) -> Self {
        self.then(Answer::text(200, text))
    }

    /// All that come after those are answered so, and none of them has to come.
    pub fn always(mut self, answer: Answer) -> Self {
        self.always = Some(answer);
        self
    }

    pub(super) fn fits(&self, asked: &Asked<'_>) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(asked.method, asked.path))
            && self.host.as_deref().is_none_or(|host| asked.is_for(host))
            && self.headers.iter().all(|(name, value)| {
                asked.headers.get_all(name).iter().any(|own| own.as_bytes() == value.as_bytes())
            })
    }

    /// The answer whose turn it is.
    pub(super) fn next(&mut self, method: &Method) -> Option<crate::fault::wire::Fault> {
        let answer = self.answers.pop_front().or_else(|| self.always.clone())?;
        self.given += 1;
        Some(answer.fault(method))
    }

    /// How many answers nobody has asked for.
    pub(super) fn left(&self) -> usize {
        self.answers.len()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} given, ", self.said, self.given)?;
        match self.always {
            Some(_) => write!(f, "{} left and one for all others", self.left()),
            None => write!(f, "{} left", self.left()),
        }
    }
}
