//! Reading an error of the transport by walking its chain of sources.
//!
//! The chain is read rather than the outermost type because every layer between us and the socket
//! wraps: what proves that a request was never sent sits two or three levels down, as hyper's or
//! h2's own type.
//!
//! What the chain says holds for the request that failed on the wire. Whether that is the request
//! of this attempt (it may be the hop of a redirect), and whether a connection's `GOAWAY` speaks of
//! this request's stream, only the transport can tell: that is its [`Evidence`].

use std::error::Error as StdError;
use std::io;

use super::classified::{Classified, Repeat};
use super::connecting;
#[cfg(any(test, feature = "http2"))]
use crate::outcome::classify::evidence::Sent;
use crate::outcome::classify::evidence::{AfterRedirect, Evidence};
use crate::outcome::{FailureKind, Outcome};
use crate::replay::ReplayError;
use crate::reqwest_error::ReqwestError;

/// What the error means, on the transport's evidence.
pub(crate) fn classify(error: &(dyn StdError + 'static), evidence: Evidence) -> Classified {
    let chain = || Chain(Some(error));
    let found = chain().find_map(|link| known(link, evidence)).unwrap_or_else(|| {
        if !chain().any(is_loss) {
            return UNKNOWN;
        }
        // One out of the pool that attempts have to themselves was most likely dead already. It has
        // carried another request before, so that there are no more such repeats than connections
        // that have served.
        Classified::lost(
            FailureKind::Transport,
            if evidence.pooled { Repeat::Doubtful } else { Repeat::IfSafe },
        )
    });
    evidence.weigh(found)
}

const UNKNOWN: Classified = Classified::failure(FailureKind::Transport, Repeat::IfSafe);

/// An error and its sources.
struct Chain<'a>(Option<&'a (dyn StdError + 'static)>);

impl<'a> Iterator for Chain<'a> {
    type Item = &'a (dyn StdError + 'static);

    fn next(&mut self) -> Option<Self::Item> {
        let this = self.0?;
        self.0 = this.source();
        Some(this)
    }
}

fn known(error: &(dyn StdError + 'static), evidence: Evidence) -> Option<Classified> {
    if let Some(ours) = error.downcast_ref::<crate::Error>() {
        // A client of ours below a layer of ours: it has tried already, and its refusals say
        // nothing about the server.
        return (ours.is_rejected() || ours.is_config()).then_some(Classified::IGNORED);
    }
    if let Some(error) = error.downcast_ref::<ReplayError>() {
        // Ours, not the server's. One that was cut off must not end a call whose other attempt has
        // the rest.
        let repeat = if error.is_cut_off() { Repeat::IfSafe } else { Repeat::Never };
        return Some(Classified { repeat, ..Classified::IGNORED });
    }
    if error.is::<AfterRedirect>() {
        // Whatever befell the hop, the request it began with was answered.
        return Some(UNKNOWN);
    }
    if error.is::<tower::load_shed::error::Overloaded>() {
        // A load-shed inside a layer of ours: refused on this side, and to try again would be a
        // wait for ourselves.
        return Some(Classified::neutral(FailureKind::Transport, Repeat::Never));
    }
    if error.is::<tower::timeout::error::Elapsed>() {
        // A service's own timeout.
        return Some(Classified::TIMEOUT);
    }
    if let Some(error) = error.downcast_ref::<ReqwestError>() {
        if error.is_builder() {
            return Some(Classified::IGNORED);
        }
        if error.is_redirect() {
            return Some(Classified {
                outcome: Outcome::Failure(FailureKind::Redirect),
                ..Classified::IGNORED
            });
        }
        if error.is_connect() {
            return Some(unconnected(error));
        }
        // The given client's own timeout; a connect timeout is both, and was asked first.
        return error.is_timeout().then_some(Classified::TIMEOUT);
    }
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect().then(|| unconnected(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // Nothing but `connect` ends so, whoever's transport called it.
        return (error.kind() == io::ErrorKind::ConnectionRefused).then(|| unconnected(error));
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return of_hyper(error, evidence);
    }
    #[cfg(feature = "http2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return of_h2(error, evidence);
    }
    None
}

/// No connection was made.
fn unconnected(error: &(dyn StdError + 'static)) -> Classified {
    if Chain(error.source()).any(is_shortage) {
        return Classified::neutral(FailureKind::Connect, Repeat::Unprocessed);
    }
    if Chain(error.source()).any(is_others_connect) {
        return Classified::neutral(FailureKind::Unsent, Repeat::Unsent);
    }
    connecting::classify(error)
}

/// Whether this machine ran short of something: descriptors, local ports, buffers. That is no fault
/// of the server's.
fn is_shortage(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind as Kind;
    let Some(error) = error.downcast_ref::<io::Error>() else { return false };
    // A socket that is bound before it connects finds no port free as "in use".
    if matches!(error.kind(), Kind::AddrNotAvailable | Kind::AddrInUse | Kind::OutOfMemory) {
        return true;
    }
    // Those the standard library has no kind for.
    let codes: &[i32] = if cfg!(windows) {
        // ERROR_TOO_MANY_OPEN_FILES, WSAEMFILE, WSAENOBUFS
        &[4, 10_024, 10_055]
    } else if cfg!(any(target_os = "linux", target_os = "android")) {
        // ENFILE, EMFILE, ENOBUFS
        &[23, 24, 105]
    } else {
        // The same on the BSDs and macOS.
        &[23, 24, 55]
    };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Whether a pool gave up waiting for a connection that another request was making: that one's
/// caller left, or the connection failed, which counts where it is known. The pool's type has no
/// public name, so its words must do; it has no source, as whatever kept a connection from being
/// made would.
fn is_others_connect(error: &(dyn StdError + 'static)) -> bool {
    error.source().is_none()
        && matches!(error.to_string().as_str(), "request was canceled" | "checked out connection was closed")
}

fn of_hyper(error: &hyper::Error, evidence: Evidence) -> Option<Classified> {
    if error.is_canceled() {
        // hyper says so only when it hands back a message it never took off the queue to write.
        return Some(if evidence.reused || evidence.pooled {
            Classified::neutral(FailureKind::Unsent, Repeat::Unsent)
        } else {
            Classified::lost(FailureKind::Unsent, Repeat::Unprocessed)
        });
    }
    if error.is_closed() {
        // The connection ended as soon as it was made.
        return Some(Classified::lost(FailureKind::Unsent, Repeat::Unprocessed));
    }
    if !error.is_user() {
        return None;
    }
    // No method asks for this one: the task that drove the connection is gone, with the runtime it
    // ran on, or because a GOAWAY came while this request was waiting for a stream. It may have got
    // one meanwhile.
    if error.to_string().starts_with("dispatch task is gone") {
        return Some(Classified::neutral(FailureKind::Transport, Repeat::Doubtful));
    }
    // The request's own body failed, say. The replay buffer's error, further down, knows more.
    let knows_more = Chain(error.source()).any(<dyn StdError>::is::<ReplayError>);
    (!knows_more).then_some(Classified::IGNORED)
}

/// RFC 9113 sections 6.8 and 8.7: a stream refused, or above the last one a `GOAWAY` admits, was
/// not processed.
///
/// h2 fails exactly the streams above that last one with the `GOAWAY` itself. But hyper also
/// reports the connection's `GOAWAY` for a request that it has just given to h2 as an admitted
/// stream, which may be on the wire by then.
#[cfg(feature = "http2")]
fn of_h2(error: &h2::Error, evidence: Evidence) -> Option<Classified> {
    if error.is_reset() && !error.is_remote() && !error.is_library() {
        // Reset from here, which hyper does when the request's own body failed.
        return Some(Classified::IGNORED);
    }
    if !error.is_remote() {
        return None;
    }
    if error.is_reset() {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        return refused.then_some(Classified::neutral(FailureKind::Refused, Repeat::Refused));
    }
    let (graceful, own) = (error.reason() == Some(h2::Reason::NO_ERROR), evidence.sent == Sent::OwnStream);
    Some(match (graceful, own) {
        (true, true) => Classified::neutral(FailureKind::Refused, Repeat::Refused),
        (true, false) => Classified::neutral(FailureKind::Transport, Repeat::Doubtful),
        // What the server accuses us of, or itself, is a failure, whether it began this request or
        // not.
        (false, true) => Classified::lost(FailureKind::Refused, Repeat::Unprocessed),
        (false, false) => Classified::lost(FailureKind::Transport, Repeat::IfSafe),
    })
}

/// Whether a connection that the attempt had to itself had been made, and ended: a pool may hold
/// more like it. Of one that is shared the pool knows itself that it has ended, so what follows
/// would only add connections.
pub(crate) fn is_dead_connection(error: &(dyn StdError + 'static)) -> bool {
    let mut ended = false;
    for link in Chain(Some(error)) {
        if link.downcast_ref::<ReqwestError>().is_some_and(ReqwestError::is_connect) {
            return false;
        }
        #[cfg(feature = "http2")]
        if link.is::<h2::Error>() {
            return false;
        }
        let gone = |error: &hyper::Error| error.is_canceled() || error.is_closed();
        ended |= is_loss(link) || link.downcast_ref::<hyper::Error>().is_some_and(gone);
    }
    ended
}

/// Whether it is the end of a connection.
fn is_loss(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind as Kind;
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message();
    }
    #[cfg(feature = "http2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return error.is_go_away();
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe
                | Kind::NotConnected
                | Kind::UnexpectedEof
                | Kind::TimedOut
                | Kind::WriteZero
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureCause;
    use crate::outcome::Verdict;

    fn on(sent: Sent, error: &(dyn StdError + 'static)) -> Classified {
        classify(error, Evidence { sent, ..Evidence::default() })
    }

    #[test]
    fn what_this_machine_ran_short_of_is_known_by_its_code() {
        for code in [23, 24] {
            assert!(is_shortage(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for kind in [io::ErrorKind::AddrNotAvailable, io::ErrorKind::AddrInUse] {
            assert!(is_shortage(&io::Error::from(kind)), "{kind}");
        }
        for other in
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable]
        {
            assert!(!is_shortage(&io::Error::from(other)), "{other}");
        }
    }

    #[test]
    fn a_refused_connection_is_known_whoevers_transport_it_was() {
        let refused: io::Error = io::ErrorKind::ConnectionRefused.into();
        assert_eq!(on(Sent::Direct, &refused), Classified::lost(FailureKind::Connect, Repeat::Unprocessed));
        assert_eq!(on(Sent::Unknown, &refused).repeat, Repeat::IfSafe, "it may be a hop's");
    }

    #[test]
    fn connections_that_were_lost_have_one_cause_and_errors_of_somebody_elses_their_own() {
        let reset: io::Error = io::ErrorKind::ConnectionReset.into();
        assert_eq!(on(Sent::Direct, &reset), Classified::lost(FailureKind::Transport, Repeat::IfSafe));
        assert_eq!(on(Sent::Direct, &io::Error::other("boom")).cause, FailureCause::Own);
        let known = Evidence { sent: Sent::Direct, connection: Some(7), ..Evidence::default() };
        assert_eq!(classify(&reset, known).cause, FailureCause::Connection(7));
    }

    #[cfg(feature = "http2")]
    #[test]
    fn the_code_alone_is_no_frame_from_the_server() {
        let error = h2::Error::from(h2::Reason::REFUSED_STREAM);
        assert_eq!(on(Sent::OwnStream, &error), UNKNOWN, "not said by the server");
    }

    #[test]
    fn without_a_transport_that_sends_one_request_nothing_is_proven() {
        let weigh = |repeat| Evidence::default().weigh(Classified::lost(FailureKind::Connect, repeat)).repeat;
        assert_eq!(weigh(Repeat::Unprocessed), Repeat::IfSafe);
        assert_eq!(weigh(Repeat::Unsent), Repeat::Doubtful);
        assert_eq!(weigh(Repeat::Refused), Repeat::Doubtful);
        assert_eq!(weigh(Repeat::Once), Repeat::Once);
    }

    /// tower's own errors, by type.
    #[tokio::test]
    async fn a_load_shed_is_nobodys_failure_and_a_timeout_the_servers() {
        let shed = tower::load_shed::error::Overloaded::new();
        let found = on(Sent::Unknown, &shed);
        assert_eq!((found.verdict, found.repeat), (Verdict::Neutral, Repeat::Never));
        assert_eq!(on(Sent::Unknown, &tower::timeout::error::Elapsed::new()), Classified::TIMEOUT);
    }
}
