//! URLs as they may be shown: in errors, reports and logs.

use std::borrow::Cow;
use std::sync::Arc;

use url::Url;

/// Without what may be secret: credentials, query values, fragment. Query names stay, they explain
/// more than they tell.
pub(crate) fn redacted(url: &Url) -> Url {
    let mut clean = url.clone();
    // Both fail only for URLs that can't have credentials.
    let _ = clean.set_username("");
    let _ = clean.set_password(None);
    clean.set_fragment(None);
    if url.query().is_some() {
        let names = url.query_pairs().map(|(name, _)| name);
        clean.query_pairs_mut().clear().extend_keys_only::<_, Cow<'_, str>>(names);
    }
    clean
}

/// A path with names for those of its segments that differ from call to call, such as
/// `/users/{id}`. What stands in their places may be secret, so the template is shown in place of
/// the path. Thin, as every report has room for one.
#[derive(Clone, Debug)]
#[allow(clippy::redundant_allocation, reason = "half as wide")]
pub(crate) struct Template(Arc<Box<str>>);

impl Template {
    pub(crate) fn new(template: &str) -> Self {
        Self(Arc::new(template.split(['?', '#']).next().unwrap_or_default().into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// [`redacted`], with the template of its path in place of that, if there is one.
pub(crate) fn shown(url: &Url, template: Option<&Template>) -> Url {
    let mut clean = redacted(url);
    if let Some(template) = template {
        clean.set_path(template.as_str());
    }
    clean
}

/// The same for a text that should be a URL and may be none: what stands before the last `@` is
/// hidden, query and fragment are cut off.
pub(crate) fn redacted_text(text: &str) -> Cow<'_, str> {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((before, after)) = text.rsplit_once('@') else { return Cow::Borrowed(text) };
    match before.split_once("://") {
        Some((scheme, _)) => Cow::Owned(format!("{scheme}://***@{after}")),
        None => Cow::Owned(format!("***@{after}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_url_keeps_no_secret() {
        let url = Url::parse("https://alice:hunter2@users.internal/a/b?token=s3cret&page=2#frag").unwrap();
        let clean = redacted(&url);
        for secret in ["alice", "hunter2", "s3cret", "frag"] {
            assert!(!clean.as_str().contains(secret), "{clean}");
        }
        assert!(clean.as_str().contains("token"), "{clean}");
        assert!(clean.as_str().starts_with("https://users.internal/a/b?"), "{clean}");
    }
}
