//! gRPC's status codes.

use http::{HeaderMap, HeaderName};

/// Where an answer says its code.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A status code of gRPC's. What they mean here is in the [module's table](super).
///
/// A [classifier](crate::outcome::classify::Classify) of one's own asks for it:
///
/// ```
/// use resilient_client::Policy;
/// use resilient_client::outcome::classify::grpc::Code;
/// use resilient_client::outcome::classify::{Classified, Ended, Repeat};
///
/// // These methods may be repeated when the server lost a race, as well.
/// let policy = Policy::standard().classify(|end: Ended<'_>, standard: Classified| match end {
///     Ended::Response(_, headers) if Code::of(headers) == Some(Code::Aborted) => {
///         standard.with_repeat(Repeat::IfSafe)
///     }
///     _ => standard,
/// });
/// assert!(policy.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// 0: not an error.
    Ok,
    /// 1: the call was cancelled.
    Cancelled,
    /// 2: an error that says no more, or a code that doesn't exist.
    Unknown,
    /// 3: the request makes no sense, whatever the state of things.
    InvalidArgument,
    /// 4: the time ran out.
    DeadlineExceeded,
    /// 5: there is no such thing.
    NotFound,
    /// 6: there is such a thing already.
    AlreadyExists,
    /// 7: the caller may not.
    PermissionDenied,
    /// 8: a quota, or something else that comes to an end, is used up.
    ResourceExhausted,
    /// 9: things aren't in the state that the request needs.
    FailedPrecondition,
    /// 10: a conflict with another call.
    Aborted,
    /// 11: past the end of what there is.
    OutOfRange,
    /// 12: the server has no such method.
    Unimplemented,
    /// 13: something that should never be wrong is.
    Internal,
    /// 14: the service can't be had at the moment.
    Unavailable,
    /// 15: data is lost for good.
    DataLoss,
    /// 16: nobody knows who the caller is.
    Unauthenticated,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// What headers or trailers say; `None` without `grpc-status`. What is no code of gRPC's is
    /// [`Unknown`](Self::Unknown).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(GRPC_STATUS).map(|value| Self::read(value.as_bytes()))
    }

    fn read(value: &[u8]) -> Self {
        let number = match value {
            [digit @ b'0'..=b'9'] => digit - b'0',
            [b'1', digit @ b'0'..=b'9'] => 10 + digit - b'0',
            _ => return Self::Unknown,
        };
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Unknown)
    }

    /// As it is sent: 0 to 16.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_code_is_read_as_it_is_sent_and_nothing_else_is_one() {
        for (number, code) in (0_u8..).zip(Code::ALL) {
            assert_eq!((code.number(), Code::read(number.to_string().as_bytes())), (number, code));
        }
        for none in ["17", "99", "00", "01", "", " 0", "-1", "x", "140", "0.0"] {
            assert_eq!(Code::read(none.as_bytes()), Code::Unknown, "{none:?}");
        }
        assert_eq!(Code::of(&HeaderMap::new()), None);
        let garbage = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_bytes(b"\xff").unwrap())]);
        assert_eq!(Code::of(&garbage), Some(Code::Unknown));
    }
}
