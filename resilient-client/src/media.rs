//! Media types, as far as they matter here (RFC 9110, section 8.3.1): compared without regard to
//! case and parameters.

#[cfg(feature = "grpc")]
use http::Method;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

const GRPC: &[u8] = b"application/grpc";

/// Type and subtype of what the headers announce, as they are written; empty where they announce
/// nothing.
fn essence(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    value[..end].trim_ascii()
}

/// Whether a body of this type has no end: server-sent events (HTML, "server-sent events") and the
/// parts that replace one another (`multipart/x-mixed-replace`).
///
/// Lines of JSON (`application/x-ndjson`) and gRPC messages mostly end; who streams without an end
/// marks the call as streaming.
pub(crate) fn is_unending(headers: &HeaderMap) -> bool {
    let essence = essence(headers);
    essence.eq_ignore_ascii_case(b"text/event-stream")
        || essence.eq_ignore_ascii_case(b"multipart/x-mixed-replace")
}

/// Whether it is gRPC: `application/grpc`, with or without a message format (`+proto`), or
/// gRPC-Web.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some((first, rest)) = essence(headers).split_at_checked(GRPC.len()) else { return false };
    first.eq_ignore_ascii_case(GRPC)
        && (rest.is_empty() || rest.starts_with(b"+") || rest.to_ascii_lowercase().starts_with(b"-web"))
}

/// Whether a request is a call by gRPC. Those by gRPC-Web, whose trailers are part of the body,
/// aren't any.
#[cfg(feature = "grpc")]
#[inline]
pub(crate) fn calls_grpc(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && is_grpc(headers) && essence(headers).get(GRPC.len()) != Some(&b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_stream_is_known_by_its_type_whatever_its_case_and_parameters() {
        for value in [
            "text/event-stream",
            "Text/Event-Stream",
            "text/event-stream;charset=utf-8",
            " TEXT/EVENT-STREAM ; x=1",
            "multipart/x-mixed-replace; boundary=frame",
        ] {
            assert!(is_unending(&of(value)), "{value}");
        }
        for value in
            ["text/event-streaming", "text/event-stream+x", "text/plain; a=text/event-stream", "", ";"]
        {
            assert!(!is_unending(&of(value)), "{value}");
        }
        assert!(!is_unending(&HeaderMap::new()));
    }

    #[test]
    fn grpc_is_known_with_its_formats() {
        for value in ["application/grpc", "Application/gRPC+proto", "application/grpc-web+json; v=1"] {
            assert!(is_grpc(&of(value)), "{value}");
        }
        for value in ["application/grpcx", "application/json", "text/grpc", ""] {
            assert!(!is_grpc(&of(value)), "{value}");
        }
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn a_call_by_grpc_is_a_post_with_its_type() {
        for value in ["application/grpc", "Application/gRPC+proto", "application/grpc+my-own"] {
            assert!(calls_grpc(&Method::POST, &of(value)), "{value}");
            assert!(!calls_grpc(&Method::GET, &of(value)), "{value}");
        }
        for value in ["application/grpc-web", "application/grpc-web+proto", "application/json"] {
            assert!(!calls_grpc(&Method::POST, &of(value)), "{value}");
        }
    }
}
