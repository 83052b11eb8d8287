//! What came back: counts and latencies by phase and by second, and a line for every order for the
//! audit.

use std::time::Duration;

use crate::arrivals::NewOrder;
use crate::histogram::Histogram;
use crate::load::PATIENCE;

/// What an order-service answered to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201: the user exists and the order is stored.
    Created,
    /// 202: the order is stored; whether the user exists will be found out later.
    Accepted,
    /// 422: there is no such user.
    Refused,
    /// 409: the same order is being worked on right now, of which the client sent another copy.
    Conflict,
    /// Any other status.
    Failed(u16),
    /// No answer within the client's patience, or the gateway's.
    TimedOut,
    /// The connection failed.
    Broken,
    /// Not sent: too many orders were waiting already.
    GivenUp,
}

impl Answer {
    pub(crate) const fn from_status(status: u16) -> Self {
        match status {
            201 => Self::Created,
            202 => Self::Accepted,
            409 => Self::Conflict,
            422 => Self::Refused,
            // A gateway's, which waits for less time than the client does.
            504 => Self::TimedOut,
            other => Self::Failed(other),
        }
    }

    /// Whether it is an error that no wait explains.
    pub(crate) const fn is_wrong(self) -> bool {
        matches!(self, Self::Conflict | Self::Failed(_) | Self::Broken)
    }

    /// Whether the client may rely on the order being stored.
    pub(crate) const fn acknowledges(self) -> bool {
        matches!(self, Self::Created | Self::Accepted)
    }
}

/// One order and what became of it, as its sender saw it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    pub(crate) known_user: bool,
    /// The number of the scenario's phase in which it was due.
    pub(crate) phase: Option<usize>,
    /// When it was due, since the start of the load.
    pub(crate) at: Duration,
    pub(crate) latency: Duration,
    pub(crate) answer: Answer,
    /// The answer to the second try of an impatient client.
    pub(crate) again: Option<Answer>,
    /// Whether it is sent twice.
    pub(crate) twice: bool,
}

impl Sent {
    /// An order that nobody has answered yet.
    pub(crate) fn new(order: &NewOrder, phase: Option<usize>, at: Duration) -> Self {
        let (number, known_user) = (order.number, order.user.is_some());
        let (latency, answer, twice) = (Duration::ZERO, Answer::GivenUp, order.twice);
        Self { number, known_user, phase, at, latency, answer, again: None, twice }
    }

    /// How long its sender waited. One that was given up unsent would look quick.
    pub(crate) fn waited(&self) -> Duration {
        if self.answer == Answer::GivenUp { PATIENCE } else { self.latency }
    }

    /// Whether the second copy came first, on a machine that is busy, so that the first is only
    /// told to wait for it.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.twice && self.answer == Answer::Conflict
    }

    /// The other copy's answer is the one that counts.
    pub(crate) fn take_the_others_answer(&mut self, latency: Duration) {
        if let Some(again) = self.again {
            (self.answer, self.latency) = (again, latency);
        }
    }

    /// Whether either answer promised that the order is stored.
    pub(crate) fn acknowledged(&self) -> bool {
        self.answer.acknowledges() || self.again.is_some_and(Answer::acknowledges)
    }

    /// Whether the answer is a right one: stored if the user exists, refused if not, accepted in
    /// either case.
    pub(crate) fn served(&self) -> bool {
        match self.answer {
            Answer::Created => self.known_user,
            Answer::Refused => !self.known_user,
            Answer::Accepted => true,
            _ => false,
        }
    }
}

/// Counts and latencies over some span.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Orders answered at once and rightly: 201, or 422 for a user who doesn't exist.
    pub(crate) settled: u64,
    /// Orders answered 202.
    pub(crate) accepted: u64,
    /// Orders that failed.
    pub(crate) failed: u64,
    /// How long orders took, failed ones included.
    pub(crate) post: Histogram,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    /// How long reads took, failed ones included.
    pub(crate) read: Histogram,
}

impl Tally {
    fn order(&mut self, sent: &Sent) {
        match sent.answer {
            Answer::Accepted => self.accepted += 1,
            _ if sent.served() => self.settled += 1,
            _ => self.failed += 1,
        }
        self.post.record(sent.latency);
    }

    fn read(&mut self, latency: Duration, ok: bool) {
        self.reads += 1;
        self.reads_failed += u64::from(!ok);
        self.read.record(latency);
    }
}

/// All that is written down about one order-service.
#[derive(Clone, Default)]
pub(crate) struct Books {
    /// By the phase in which the request was due.
    phases: Vec<Tally>,
    /// By the second in which the answer came.
    second: Tally,
    /// `None` where nobody will ask what became of each.
    sent: Option<Vec<Sent>>,
}

impl Books {
    /// For a scenario of so many phases.
    pub(crate) fn new(phases: usize) -> Self {
        Self { sent: Some(Vec::new()), ..Self::without_end(phases) }
    }

    /// For a run that may go on for days: only what is counted is kept.
    pub(crate) fn without_end(phases: usize) -> Self {
        Self { phases: vec![Tally::default(); phases], ..Self::default() }
    }

    /// An order was answered, for the first time.
    pub(crate) fn answered(&mut self, sent: &Sent) {
        if let Some(phase) = sent.phase {
            self.phases[phase].order(sent);
            self.second.order(sent);
        }
    }

    /// All that will be answered to an order has been.
    pub(crate) fn close(&mut self, sent: Sent) {
        if let Some(all) = &mut self.sent {
            all.push(sent);
        }
    }

    pub(crate) fn read(&mut self, phase: usize, latency: Duration, ok: bool) {
        self.phases[phase].read(latency, ok);
        self.second.read(latency, ok);
    }

    /// What came in since this was last asked.
    pub(crate) fn take_second(&mut self) -> Tally {
        std::mem::take(&mut self.second)
    }

    pub(crate) fn phase(&self, phase: usize) -> &Tally {
        &self.phases[phase]
    }

    pub(crate) fn sent(&self) -> &[Sent] {
        self.sent.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(answer: Answer, known_user: bool) -> Sent {
        let (at, latency) = (Duration::ZERO, Duration::from_millis(2));
        Sent { number: 1, known_user, phase: Some(1), at, latency, answer, again: None, twice: false }
    }

    #[test]
    fn only_a_right_answer_counts_as_served() {
        assert!(sent(Answer::Created, true).served());
        assert!(sent(Answer::Refused, false).served());
        assert!(sent(Answer::Accepted, true).served());
        assert!(sent(Answer::Accepted, false).served());
        assert!(!sent(Answer::Created, false).served(), "a stranger's order was confirmed");
        assert!(!sent(Answer::Refused, true).served(), "a customer was turned away");
        for failure in
            [Answer::Conflict, Answer::Failed(500), Answer::TimedOut, Answer::Broken, Answer::GivenUp]
        {
            assert!(!sent(failure, true).served());
        }
    }

    #[test]
    fn an_order_is_booked_in_its_phase_and_its_second() {
        let mut books = Books::new(2);
        for answer in [Answer::Created, Answer::Accepted, Answer::TimedOut] {
            books.answered(&sent(answer, true));
        }
        books.read(1, Duration::from_millis(1), false);
        let second = books.take_second();
        for tally in [books.phase(1), &second] {
            assert_eq!((tally.settled, tally.accepted, tally.failed), (1, 1, 1));
            assert_eq!((tally.reads, tally.reads_failed), (1, 1));
        }
        assert_eq!(books.take_second().post.len(), 0, "a second is told once");
        assert_eq!(books.phase(0).post.len(), 0);
    }

    /// A held demo kept every order in mind, some 700 MB a day.
    #[test]
    fn a_run_without_end_keeps_counts_and_no_orders() {
        let mut books = Books::without_end(2);
        books.answered(&sent(Answer::Created, true));
        books.close(sent(Answer::Created, true));
        assert_eq!((books.phase(1).settled, books.sent().len()), (1, 0));
    }

    #[test]
    fn a_copy_that_was_overtaken_has_the_others_answer() {
        let twice = Sent { twice: true, ..sent(Answer::Conflict, true) };
        assert!(twice.is_overtaken() && !sent(Answer::Conflict, true).is_overtaken());
        for (again, served) in [(Some(Answer::Created), true), (Some(Answer::Broken), false), (None, false)] {
            let mut overtaken = Sent { again, ..twice.clone() };
            overtaken.take_the_others_answer(Duration::from_millis(60));
            assert_eq!(overtaken.served(), served, "{again:?}");
        }
    }

    #[test]
    fn the_second_answer_to_an_impatient_client_counts_as_a_promise() {
        let impatient = Sent { again: Some(Answer::Accepted), ..sent(Answer::TimedOut, true) };
        assert!(impatient.acknowledged());
        assert!(!sent(Answer::Conflict, true).acknowledged());
    }
}
