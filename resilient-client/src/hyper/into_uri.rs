//! What a request's URL is given as.

use http::Uri;
use url::Url;

/// What a request's URL is given as: text, a [`Uri`] or a [`Url`]. As reqwest's `IntoUrl`, it is
/// there for the methods of [`Client`](super::Client) and for nobody else.
///
/// Text is first looked at as it stands: below a [base](super::ClientBuilder::base_url) it may be a
/// path that begins with no `/`, or a query alone, and neither is a `Uri`.
pub trait IntoUri: sealed::Given {}

impl IntoUri for &str {}
impl IntoUri for String {}
impl IntoUri for &String {}
impl IntoUri for Uri {}
impl IntoUri for &Uri {}
impl IntoUri for Url {}
impl IntoUri for &Url {}

pub(super) mod sealed {
    use http::Uri;

    pub trait Given {
        /// `None` for what has been read already.
        fn text(&self) -> Option<&str> {
            None
        }

        fn read(self) -> Result<Uri, http::Error>;
    }
}

impl sealed::Given for &str {
    fn text(&self) -> Option<&str> {
        Some(self)
    }

    fn read(self) -> Result<Uri, http::Error> {
        Ok(self.parse()?)
    }
}

impl sealed::Given for String {
    fn text(&self) -> Option<&str> {
        Some(self)
    }

    fn read(self) -> Result<Uri, http::Error> {
        Ok(self.try_into()?)
    }
}

impl sealed::Given for &String {
    fn text(&self) -> Option<&str> {
        Some(self)
    }

    fn read(self) -> Result<Uri, http::Error> {
        Ok(self.parse()?)
    }
}

impl sealed::Given for Uri {
    fn read(self) -> Result<Uri, http::Error> {
        Ok(self)
    }
}

impl sealed::Given for &Uri {
    fn read(self) -> Result<Uri, http::Error> {
        Ok(self.clone())
    }
}

impl sealed::Given for Url {
    fn read(self) -> Result<Uri, http::Error> {
        Ok(String::from(self).try_into()?)
    }
}

impl sealed::Given for &Url {
    fn read(self) -> Result<Uri, http::Error> {
        Ok(self.as_str().parse()?)
    }
}
