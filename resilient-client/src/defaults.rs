//! What every request of a client begins with: a base URL, and headers.

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use crate::authority::Authority;
use crate::error::{Error, ErrorKind};
use crate::header_limit::{MOST_HEADERS, put_over, too_many_headers};
use crate::invalid::Invalid;

/// As a builder is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) base: Option<String>,
    pub(crate) headers: HeaderMap,
    /// A setting that can't be had, and why.
    refused: Option<Invalid>,
}

/// As a client has it.
#[derive(Debug, Default)]
pub(crate) struct Defaults {
    base: Option<Url>,
    /// Whom it is of.
    authority: Option<Authority<'static>>,
    /// `None` rather than empty, so that there is one thing to ask.
    headers: Option<HeaderMap>,
}

impl Given {
    /// More headers, in place of those of the same names.
    pub(crate) fn put_over(&mut self, headers: HeaderMap) {
        if let Err(error) = put_over(&mut self.headers, headers) {
            self.refused = Some(Invalid::new("default_headers", error.to_string()));
        }
    }

    pub(crate) fn user_agent(&mut self, value: Result<HeaderValue, http::Error>) {
        let put = value.and_then(|value| Ok(self.headers.try_insert(header::USER_AGENT, value)?));
        if let Err(error) = put {
            self.refused = Some(Invalid::new("user_agent", error.to_string()));
        }
    }

    pub(crate) fn compile(&self) -> Result<Defaults, Invalid> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let base = self.base.as_deref().map(base_url).transpose()?;
        let headers = (!self.headers.is_empty()).then(|| self.headers.clone());
        let authority = base.as_ref().map(|base| Authority::of_url(base).into_owned());
        Ok(Defaults { base, authority, headers })
    }
}

/// A URL that others begin with. What can't be meant is refused rather than dropped.
fn base_url(text: &str) -> Result<Url, Invalid> {
    let invalid = |why: &str| Invalid::new("base_url", why);
    let url = Url::parse(text).map_err(|error| invalid(&format!("is no absolute URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("must be http or https, with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has credentials; use default_headers"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query or a fragment, which nothing can follow"));
    }
    Ok(url)
}

impl Defaults {
    /// The URL that `text` stands for below the base. `None` if it is absolute, or there is none.
    #[inline]
    pub(crate) fn below_base(&self, text: &str) -> Option<Result<Url, Error>> {
        self.base.as_ref().and_then(|base| below(base, text))
    }

    /// Whom URLs below the base are of.
    pub(crate) fn authority(&self) -> Option<&Authority<'static>> {
        self.authority.as_ref()
    }

    /// Adds the headers that a request doesn't have itself.
    #[inline]
    pub(crate) fn complete(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        self.headers.as_ref().map_or(Ok(()), |defaults| complete(headers, defaults))
    }
}

fn below(base: &Url, text: &str) -> Option<Result<Url, Error>> {
    // As URLs are read, which is without what precedes them.
    let text = text.trim_start_matches(|c: char| c <= ' ');
    if has_scheme(text) {
        return None;
    }
    let refused = |why: &str| Err(Error::new(ErrorKind::Request).says(why));
    let whole = if text.is_empty() || text.starts_with(['?', '#']) {
        format!("{base}{text}")
    } else {
        let path = text.trim_start_matches('/');
        format!("{}/{path}", base.as_str().trim_end_matches('/'))
    };
    Some(match Url::parse(&whole) {
        Ok(url) if is_below(base, &url) => Ok(url),
        Ok(_) => refused("the path leads out of the base URL"),
        Err(error) => Err(Error::new(ErrorKind::Request).because(error)),
    })
}

/// RFC 3986, 3.1.
fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// `..` is resolved by now, so that this sees where a path leads.
fn is_below(base: &Url, url: &Url) -> bool {
    let folder = base.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(folder);
    url.origin() == base.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn complete(headers: &mut HeaderMap, defaults: &HeaderMap) -> Result<(), Error> {
    let missing: Vec<_> = defaults.keys().filter(|name| !headers.contains_key(*name)).collect();
    if headers.keys_len() + missing.len() > MOST_HEADERS {
        return Err(too_many_headers(headers.keys_len() + missing.len()));
    }
    for name in missing {
        for value in defaults.get_all(name) {
            let mut value = value.clone();
            // As whoever sets it for one call has it.
            value.set_sensitive(value.is_sensitive() || name == header::AUTHORIZATION);
            let full = |_| too_many_headers(MOST_HEADERS);
            headers.try_append(name.clone(), value).map_err(full)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(base: &str) -> Result<Defaults, Invalid> {
        Given { base: Some(base.to_owned()), ..Given::default() }.compile()
    }

    #[test]
    fn a_path_is_put_below_the_base() {
        for (base, text, expected) in [
            ("http://users:3000", "/users/7", "http://users:3000/users/7"),
            ("http://users:3000", "users/7?x=1#f", "http://users:3000/users/7?x=1#f"),
            ("http://users:3000/", "", "http://users:3000/"),
            ("http://users:3000/v1", "users/7", "http://users:3000/v1/users/7"),
            ("http://users:3000/v1/", "/users/7", "http://users:3000/v1/users/7"),
            ("http://users:3000/v1", "", "http://users:3000/v1"),
            ("http://users:3000/v1", "?page=2", "http://users:3000/v1?page=2"),
            ("http://users:3000/v1", "/", "http://users:3000/v1/"),
            ("http://users:3000/v1", "a/../b", "http://users:3000/v1/b"),
            ("http://users:3000/v1", "a//b", "http://users:3000/v1/a//b"),
            // What would be another host is a path here.
            ("http://users:3000/v1", "//evil/x", "http://users:3000/v1/evil/x"),
            ("http://users:3000/v1", "@evil/x", "http://users:3000/v1/@evil/x"),
            ("http://users:3000", "@evil", "http://users:3000/@evil"),
            ("https://users", "/a b", "https://users/a%20b"),
        ] {
            let url = defaults(base).unwrap().below_base(text).unwrap().unwrap();
            assert_eq!(url.as_str(), expected, "{base} {text}");
        }
    }

    #[test]
    fn an_absolute_url_is_its_own() {
        let base = defaults("http://users:3000/v1").unwrap();
        for text in ["http://orders:3001/x", "HTTPS://orders/x", "mailto:ada", "http://", "localhost:3000/x"]
        {
            assert!(base.below_base(text).is_none(), "{text}");
        }
        assert!(Defaults::default().below_base("/users").is_none());
    }

    #[test]
    fn no_path_leads_out_of_the_base() {
        let base = defaults("http://users:3000/v1").unwrap();
        for text in ["../admin", "/../admin", "%2e%2e/admin", "a/../../v10", "..\\admin", ".."] {
            let error = base.below_base(text).unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request, "{text}");
        }
    }

    #[test]
    fn a_base_that_cannot_be_meant_is_refused() {
        for base in [
            "",
            "users",
            "/v1",
            "ftp://users",
            "http://",
            "unix:/x",
            "http://u:p@users",
            "http://u@users",
            "http://users?x=1",
            "http://users#f",
            "http://users?",
        ] {
            assert!(defaults(base).is_err(), "{base}");
        }
    }

    #[test]
    fn a_requests_own_headers_stand() {
        let mut given = HeaderMap::new();
        given.append("x-a", "1".parse().unwrap());
        given.append("x-a", "2".parse().unwrap());
        given.append("x-b", "3".parse().unwrap());
        given.append("authorization", "Bearer secret".parse().unwrap());
        let defaults = Given { headers: given, ..Given::default() }.compile().unwrap();
        let mut own = HeaderMap::new();
        own.append("x-b", "own".parse().unwrap());
        defaults.complete(&mut own).unwrap();
        defaults.complete(&mut own).unwrap();
        let all = |name| own.get_all(name).iter().map(|it| it.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-a"), all("x-b")), (vec!["1", "2"], vec!["own"]));
        assert!(own["authorization"].is_sensitive());
    }

    #[test]
    fn headers_that_have_no_room_are_refused() {
        let many = |prefix: &str, count: usize| {
            let names = (0..count).map(|n| http::HeaderName::try_from(format!("{prefix}{n}")).unwrap());
            names.map(|name| (name, http::HeaderValue::from_static("x"))).collect::<HeaderMap>()
        };
        let defaults = Given { headers: many("d", 12_001), ..Given::default() }.compile().unwrap();
        assert!(defaults.complete(&mut many("o", 12_000)).is_err());
        assert!(defaults.complete(&mut many("o", 11_999)).is_ok());
    }
}
