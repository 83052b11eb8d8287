//! What every request of a client's begins with.

/// What the clients' requests begin with. For a struct with a `setup`.
macro_rules! defaults_methods {
    () => {
        /// What URLs without scheme and host begin with, such as `https://users:3000/v1`. Default
        /// none: every URL must be absolute.
        ///
        /// | asked for, as text | is |
        /// |---|---|
        /// | `7`, `/7`, `//7` | `https://users:3000/v1/7`: a path goes below the base's, never in its place |
        /// | nothing | `https://users:3000/v1`, with a `/` at its end if the base was given one |
        /// | `?page=2` | `https://users:3000/v1?page=2` |
        /// | `a/../b` | `https://users:3000/v1/b` |
        /// | `..`, `/../admin` | [`ErrorKind::Request`](crate::ErrorKind::Request): it leads out of the base |
        /// | `http://orders:3000/7` | itself: what begins with a scheme is absolute, so `users:3000/7` is no path |
        ///
        /// [`build`](Self::build) refuses a base that isn't `http` or `https`, or has credentials,
        /// a query or a fragment.
        pub fn base_url(mut self, url: impl AsRef<str>) -> Self {
            self.setup.defaults.base = Some(url.as_ref().to_owned());
            self
        }

        /// Headers for every request that doesn't have those of the same names itself. Given
        /// several times they add up, a later one in place of an earlier one of its name.
        /// `authorization` never shows in logs. [Hooks](Self::on_attempt) see them.
        pub fn default_headers(mut self, headers: http::HeaderMap) -> Self {
            self.setup.defaults.put_over(headers);
            self
        }

        /// The `user-agent` of every request that doesn't have one itself. Default none.
        pub fn user_agent<V>(mut self, value: V) -> Self
        where
            V: TryInto<http::HeaderValue>,
            V::Error: Into<http::Error>,
        {
            self.setup.defaults.user_agent(value.try_into().map_err(Into::into));
            self
        }
    };
}

pub(crate) use defaults_methods;
