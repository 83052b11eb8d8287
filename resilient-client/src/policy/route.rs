//! Which paths a route stands for.

use http::Method;

use crate::invalid::Invalid;
use crate::redact::redacted_text;

/// A method and a template of paths, checked.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// `None` for any.
    method: Option<Method>,
    /// `None` for any one segment.
    segments: Vec<Option<String>>,
}

impl Pattern {
    pub(crate) fn new(method: &str, template: &str) -> Result<Self, Invalid> {
        Ok(Self { method: known(method)?, segments: segments(template)? })
    }

    pub(crate) fn matches(&self, method: &Method, path: &str) -> bool {
        if self.method.as_ref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        let literal = |segment: &Option<String>| {
            parts.next().is_some_and(|part| segment.as_deref().is_none_or(|segment| segment == part))
        };
        self.segments.iter().all(literal) && parts.next().is_none()
    }

    /// Whether it matches whatever `other` does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let segment = |(mine, theirs): (&Option<String>, &Option<String>)| mine.is_none() || mine == theirs;
        (self.method.is_none() || self.method == other.method)
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(segment)
    }
}

fn known(method: &str) -> Result<Option<Method>, Invalid> {
    if method == "*" {
        return Ok(None);
    }
    let known = Method::from_bytes(method.as_bytes())
        .ok()
        .filter(|_| method.bytes().all(|byte| byte.is_ascii_uppercase()));
    known
        .map(Some)
        .ok_or_else(|| Invalid::new("method", format!("must be a method in capitals or *, got {method:?}")))
}

fn segments(template: &str) -> Result<Vec<Option<String>>, Invalid> {
    let refuse = |why: &str| Invalid::new("template", format!("{why}: {:?}", redacted_text(template)));
    let path = template.strip_prefix('/').ok_or_else(|| refuse("must begin with /"))?;
    // What never stands in a request's path as it is sent would never match.
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("must be written as it is sent, with %20 for a space and the like"));
    }
    path.split('/')
        .map(|segment| match (segment.strip_prefix('{'), segment.ends_with('}')) {
            (Some(name), true) if is_name(name.strip_suffix('}').unwrap_or_default()) => Ok(None),
            (Some(name), true) if name.starts_with('*') => {
                Err(refuse("has {*rest}, and a template can't stand for several segments"))
            }
            (None, false) if segment.starts_with(':') => {
                let name = segment.trim_start_matches(':');
                Err(refuse(&format!("has a segment {segment}, write {{{name}}} for one of any kind")))
            }
            (None, false) if segment.contains('*') => {
                Err(refuse("has a *: write {name} for one segment of any kind, and a route for each length"))
            }
            (None, false) if !segment.contains(['{', '}', '?', '#']) => Ok(Some(segment.to_owned())),
            _ => Err(refuse("has a segment that is neither literal nor {name}")),
        })
        .collect()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_routers_syntax_is_refused_and_the_right_one_shown() {
        for (template, expected) in [
            ("/users/:id", "has a segment :id, write {id} for one of any kind: \"/users/:id\""),
            ("/users/*", "has a *: write {name} for one segment"),
            ("/users/*rest", "has a *: write {name} for one segment"),
            ("/users/**", "has a *: write {name} for one segment"),
            ("/users/{*rest}", "has {*rest}, and a template can't stand for several segments"),
            ("/users/{}", "has a segment that is neither literal nor {name}"),
            ("/users/{a b}", "must be written as it is sent"),
            ("/users/für", "must be written as it is sent"),
            ("/users/{id:[0-9]+}", "has a segment that is neither literal nor {name}"),
        ] {
            let message = Pattern::new("GET", template).unwrap_err().to_string();
            assert!(message.contains(expected), "{template}: {message}");
        }
        for template in ["/", "/users/{id}/avatar", "/v1/users:batch", "/a/", "/{user-id}/{_}", "/a%20b"] {
            Pattern::new("*", template).unwrap();
        }
    }

    #[test]
    fn a_pattern_covers_what_it_matches_all_of() {
        let pattern = |(method, template)| Pattern::new(method, template).unwrap();
        for (earlier, later, covers) in [
            (("GET", "/a"), ("GET", "/a"), true),
            (("*", "/a"), ("GET", "/a"), true),
            (("GET", "/a"), ("*", "/a"), false),
            (("GET", "/{x}"), ("GET", "/a"), true),
            (("GET", "/{x}"), ("GET", "/{y}"), true),
            (("GET", "/a"), ("GET", "/{x}"), false),
            (("GET", "/{x}"), ("GET", "/a/b"), false),
            (("POST", "/{x}"), ("GET", "/a"), false),
            (("GET", "/{x}/b"), ("GET", "/a/{y}"), false),
        ] {
            assert_eq!(pattern(earlier).covers(&pattern(later)), covers, "{earlier:?} {later:?}");
        }
    }
}
