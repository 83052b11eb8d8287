//! What is moved with every call must not grow unnoticed: each copy of a kilobyte costs a hundred
//! instructions.

#[cfg(feature = "reqwest")]
use crate::call::future::Call;
#[cfg(feature = "reqwest")]
use crate::client::exchange::ReqwestExchange;
use crate::outcome::report::CallReport;
use crate::upstream::AttemptPermit;

#[test]
fn what_moves_with_a_call_is_small() {
    assert!(size_of::<AttemptPermit>() <= 80, "{}", size_of::<AttemptPermit>());
    assert!(size_of::<CallReport>() <= 120, "{}", size_of::<CallReport>());
}

#[cfg(feature = "reqwest")]
#[test]
fn what_moves_with_a_call_over_reqwest_is_small() {
    assert_eq!(size_of::<crate::Response>(), size_of::<usize>());
    // With the request, tokio's timer (112) and the place of one attempt; a span and a template are
    // 16 of it.
    assert!(size_of::<Call<ReqwestExchange>>() <= 1160, "{}", size_of::<Call<ReqwestExchange>>());
}
