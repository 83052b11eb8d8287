//! How much of its caller's time the question about the user gets.
//!
//! A caller that says how long it waits is answered by then: what is left once the order is stored
//! goes to the question, and its client passes that on. An order whose question isn't answered in
//! it is pending, and the caller knows. Without this the caller would be gone when order-service
//! learns the answer, and user-service would have worked for nobody.

use std::time::Duration;

use resilient_client::deadline::{self, Deadline};

use crate::user_lookup::ask;
use crate::{Existence, LookupRequest, Unavailable, UserLookup};

/// Kept back, to store the order and to answer; of a short time half.
const RESERVE: Duration = Duration::from_millis(100);

/// By when the caller of a request wants its answer, if it said so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallerDeadline(Option<Deadline>);

impl CallerDeadline {
    /// That of the request that is being handled. It stays with the handler's own task, so this is
    /// asked there.
    pub(crate) fn of_this_request() -> Self {
        Self(deadline::current())
    }

    /// Asks whether the user exists, for as long as the caller's deadline allows and at most for
    /// `limit`.
    pub(crate) async fn ask(
        self,
        users: &dyn UserLookup,
        lookup: LookupRequest<'_>,
        limit: Duration,
    ) -> Result<Existence, Unavailable> {
        let Some(deadline) = self.0 else { return ask(users, lookup, limit).await };
        let left = for_the_question(deadline.remaining());
        if left.is_zero() {
            return Err(Unavailable::new("its caller's time is over"));
        }
        deadline::scope(Deadline::within(left), ask(users, lookup, limit.min(left))).await
    }
}

fn for_the_question(left: Duration) -> Duration {
    left.saturating_sub(RESERVE.min(left / 2))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::LookupFuture;

    const MS: Duration = Duration::from_millis(1);

    /// Notes what its client would pass on, and never answers.
    #[derive(Default)]
    struct Silent(Mutex<Option<Duration>>);

    impl UserLookup for Silent {
        fn lookup<'a>(&'a self, _lookup: LookupRequest<'a>) -> LookupFuture<'a> {
            Box::pin(async {
                *self.0.lock().unwrap() = deadline::current().map(Deadline::remaining);
                std::future::pending().await
            })
        }
    }

    async fn asked(caller: CallerDeadline) -> (Duration, Option<Duration>) {
        let (users, begun) = (Silent::default(), Deadline::within(Duration::from_hours(1)));
        let lookup = LookupRequest { user_id: "7", request_id: "1" };
        let answer = caller.ask(&users, lookup, 5000 * MS).await;
        assert!(answer.is_err());
        (Duration::from_hours(1).saturating_sub(begun.remaining()), users.0.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_question_gets_what_is_left_once_the_order_is_stored() {
        let caller = |left| CallerDeadline(Some(Deadline::within(left)));
        assert_eq!(asked(caller(600 * MS)).await, (500 * MS, Some(500 * MS)));
        assert_eq!(asked(caller(80 * MS)).await, (40 * MS, Some(40 * MS)));
        assert_eq!(asked(caller(Duration::ZERO)).await, (Duration::ZERO, None), "nobody is asked");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_or_with_a_long_one_the_limit_is_the_services_own() {
        assert_eq!(asked(CallerDeadline(None)).await, (5000 * MS, None));
        let patient = CallerDeadline(Some(Deadline::within(60_000 * MS)));
        assert_eq!(asked(patient).await.0, 5000 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_that_of_the_request_and_goes_where_it_is_taken() {
        assert!(CallerDeadline::of_this_request().0.is_none());
        let taken = async { CallerDeadline::of_this_request() };
        let caller = deadline::scope(Deadline::within(300 * MS), taken).await;
        let spawned = tokio::spawn(asked(caller)).await.unwrap();
        assert_eq!(spawned, (200 * MS, Some(200 * MS)));
    }
}
