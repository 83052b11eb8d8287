//! What kept a connection from being made, as far as the transports tell.
//!
//! | obstacle | breaker | tried again |
//! |---|---|---|
//! | the server's certificate isn't accepted, or ours | failure | no: the answer would be the same |
//! | the proxy asks for authorization (407) | nothing: it isn't the target's | no |
//! | the proxy can't be reached, or breaks off | nothing | yes |
//! | the proxy answers with another status | failure: mostly it can't reach the target | yes |
//! | anything else: refused, unreachable, DNS, timeout | failure | yes |
//!
//! Their types can't be named, so that this goes by what they say; a test with each says when that
//! changes. It is read only after a failure to connect.
//!
//! One caveat: for `http` through a proxy there is no tunnel, and a proxy that can't be reached
//! looks like a target that can't.

use std::error::Error as StdError;
use std::io;

use super::classified::{Classified, Repeat};
use crate::error::words::{OWN_BODY_FAILED, REFUSED_BELOW};
use crate::error::{BoxError, Error, ErrorKind};
use crate::outcome::{FailureKind, Outcome, Verdict};
use crate::reqwest_error::ReqwestError;

/// See the [module docs](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Certificate,
    ProxyAuthorization,
    Proxy,
    Target,
    Dns,
    Timeout,
}

/// What an attempt came to that found no connection.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> Classified {
    let failed = Classified::lost(FailureKind::Connect, Repeat::Unprocessed);
    match obstacle(error) {
        Some(Obstacle::Certificate) => Classified { repeat: Repeat::Futile, ..failed },
        Some(Obstacle::ProxyAuthorization) => {
            Classified { repeat: Repeat::Futile, verdict: Verdict::Neutral, ..failed }
        }
        Some(Obstacle::Proxy) => Classified { verdict: Verdict::Neutral, ..failed },
        Some(Obstacle::Target | Obstacle::Dns | Obstacle::Timeout) | None => failed,
    }
}

/// The same in words, where they say more than the error's own.
pub(crate) fn in_words(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    Some(match obstacle(error)? {
        Obstacle::Certificate => "a certificate was not accepted",
        Obstacle::ProxyAuthorization => "the proxy asks for authorization (407)",
        Obstacle::Proxy => "the proxy failed",
        Obstacle::Target => "the proxy made no tunnel",
        Obstacle::Dns => "DNS found no address",
        Obstacle::Timeout => "connect timeout",
    })
}

fn obstacle(error: &(dyn StdError + 'static)) -> Option<Obstacle> {
    let mut link = Some(error);
    while let Some(this) = link {
        let said = this.to_string();
        if let Some(tunnel) = said.strip_prefix("tunnel error: ") {
            return Some(match tunnel {
                "proxy authorization required" => Obstacle::ProxyAuthorization,
                "unsuccessful" => Obstacle::Target,
                _ => Obstacle::Proxy,
            });
        }
        if said == "dns error" {
            return Some(Obstacle::Dns);
        }
        if is_timeout(this) {
            return Some(Obstacle::Timeout);
        }
        if is_about_a_certificate(&said) {
            return Some(Obstacle::Certificate);
        }
        link = this.source();
    }
    None
}

/// By the words of rustls (for ours, an alert of the server's), OpenSSL, macOS and Windows. The
/// word alone could be a host's.
fn is_about_a_certificate(said: &str) -> bool {
    let alert = said.strip_prefix("received fatal alert: ");
    alert.is_some_and(|alert| alert.contains("Certificate") || alert.contains("UnknownCA"))
        || ["invalid peer certificate", "The certificate ", "A certificate "]
            .iter()
            .any(|beginning| said.starts_with(beginning))
        || said.contains("certificate verify failed")
}

/// Whether this link of a chain is a timer's end.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.kind() == io::ErrorKind::TimedOut;
    }
    if let Some(error) = error.downcast_ref::<crate::Error>() {
        return error.is_timeout();
    }
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        || error.is::<tokio::time::error::Elapsed>()
        // reqwest's own, whose type can't be named.
        || error.to_string() == "operation timed out"
}

/// Whether a timer's end is anywhere in a chain: whoever's it was.
pub(crate) fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(this) = link {
        if is_timeout(this) {
            return true;
        }
        link = this.source();
    }
    false
}

/// The error of an attempt that `fault` ended as `outcome`: with words for what kept it from
/// connecting, if that did.
#[cold]
pub(crate) fn error_of(outcome: Outcome, fault: BoxError) -> Error {
    let error = Error::attempt(outcome);
    let words = match error.kind() {
        ErrorKind::Connect => in_words(&*fault),
        ErrorKind::Timeout => Some("by a timer of the transport's own, which nothing set here lifts"),
        ErrorKind::Request => unsendable(&*fault),
        _ => None,
    };
    match words {
        Some(words) => error.says(words).because(fault),
        None => error.because(fault),
    }
}

/// Why a request that was well built didn't go out; `None` of one that couldn't be built.
fn unsendable(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut link = Some(error);
    while let Some(this) = link {
        if this.downcast_ref::<ReqwestError>().is_some_and(ReqwestError::is_builder) {
            return None;
        }
        if this.is::<crate::Error>() {
            return Some(REFUSED_BELOW);
        }
        link = this.source();
    }
    Some(OWN_BODY_FAILED)
}

/// What a body that failed with `fault` is: it stalled, if some timer below says so.
#[cold]
pub(crate) fn body_error(fault: BoxError) -> (FailureKind, Error) {
    let kind = if timed_out(&*fault) { FailureKind::BodyIdle } else { FailureKind::Body };
    (kind, Error::attempt(Outcome::Failure(kind)).because(fault))
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    /// An error that says this, because of that.
    #[derive(Debug)]
    struct Says(&'static str, Option<Box<dyn StdError>>);

    impl fmt::Display for Says {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Says {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref()
        }
    }

    #[test]
    fn each_row_of_the_table_holds() {
        use Repeat::{Futile, Unprocessed};
        use Verdict::{Failure, Neutral};
        for (said, verdict, repeat) in [
            ("invalid peer certificate: UnknownIssuer", Failure, Futile),
            ("received fatal alert: CertificateRequired", Failure, Futile),
            ("error:0A000086:SSL routines: certificate verify failed", Failure, Futile),
            ("tunnel error: proxy authorization required", Neutral, Futile),
            ("tunnel error: failed to create underlying connection", Neutral, Unprocessed),
            ("tunnel error: unexpected end of file", Neutral, Unprocessed),
            ("tunnel error: unsuccessful", Failure, Unprocessed),
            ("dns error", Failure, Unprocessed),
            ("connection refused", Failure, Unprocessed),
            ("no record of certificates.internal", Failure, Unprocessed),
        ] {
            let error = Says("client error (Connect)", Some(Box::new(Says(said, None))));
            let got = classify(&error);
            assert_eq!((got.verdict, got.repeat), (verdict, repeat), "{said}");
            assert_eq!(got.outcome, crate::outcome::Outcome::Failure(FailureKind::Connect));
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_reached_is_not_taken_for_the_target() {
        let refused = Says("tcp connect error", Some(Box::new(io::Error::from(io::ErrorKind::TimedOut))));
        let error = Says("tunnel error: failed to create underlying connection", Some(Box::new(refused)));
        assert_eq!(
            (classify(&error).verdict, in_words(&error)),
            (Verdict::Neutral, Some("the proxy failed"))
        );
    }
}
