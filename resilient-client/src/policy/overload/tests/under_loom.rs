use loom::thread;

use super::*;
use crate::policy::priority::Priority;

#[test]
fn loom_a_place_is_given_once_and_comes_back() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        limit.publish(Some(1));
        let other = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || {
                let taken = limit.try_acquire(Priority::Normal, at(0)).is_ok();
                if taken {
                    limit.release(Answered);
                }
            })
        };
        let taken = limit.try_acquire(Priority::Normal, at(0)).is_ok();
        assert!(limit.in_flight() <= 1);
        other.join().unwrap();
        assert_eq!(limit.in_flight(), u32::from(taken));
    });
}

#[test]
fn loom_the_limit_moves_beside_who_takes_and_gives() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        limit.overrun();
        let moving = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || limit.publish(Some(3)))
        };
        limit.overrun();
        limit.release(Answered);
        moving.join().unwrap();
        assert_eq!((limit.in_flight(), limit.limit()), (1, Some(3)));
    });
}

/// Either who gives a place back wakes who comes to wait for it, or that one sees the place.
#[test]
fn loom_no_place_is_missed_by_who_comes_to_wait_for_it() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        let line = loom::sync::Arc::new(line(1));
        limit.publish(Some(1));
        limit.overrun();
        let giving = {
            let (limit, line) = (loom::sync::Arc::clone(&limit), loom::sync::Arc::clone(&line));
            thread::spawn(move || {
                if limit.release(Answered) {
                    line.wake();
                }
            })
        };
        let bell = Arc::<Bell>::default();
        let waiter = line.join(Priority::Normal, at(0), Tick::NEVER).unwrap();
        assert_eq!(poll(&line, &waiter, &bell, at(0)), Poll::Ready(Ok(())), "it is first");
        let seen = limit.try_acquire(Priority::Normal, at(0)).is_ok();
        giving.join().unwrap();
        assert!(seen || bell.0.load(Std::SeqCst) == 1);
        if !seen {
            assert_eq!(poll(&line, &waiter, &bell, at(0)), Poll::Ready(Ok(())));
            assert!(limit.try_acquire(Priority::Normal, at(0)).is_ok());
        }
    });
}

/// The same when the limit ends.
#[test]
fn loom_an_ended_limit_is_not_missed_by_who_comes_to_wait() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        let line = loom::sync::Arc::new(line(1));
        limit.publish(Some(1));
        limit.overrun();
        let ending = {
            let (limit, line) = (loom::sync::Arc::clone(&limit), loom::sync::Arc::clone(&line));
            thread::spawn(move || {
                limit.publish(None);
                line.wake();
            })
        };
        let bell = Arc::<Bell>::default();
        let waiter = line.join(Priority::Normal, at(0), Tick::NEVER).unwrap();
        assert_eq!(poll(&line, &waiter, &bell, at(0)), Poll::Ready(Ok(())));
        let seen = limit.try_acquire(Priority::Normal, at(0)).is_ok();
        ending.join().unwrap();
        assert!(seen || bell.0.load(Std::SeqCst) == 1);
    });
}

/// Either who answers wakes who comes to wait for the end of a silence, or that one sees it.
#[test]
fn loom_an_answer_is_not_missed_by_who_comes_to_wait() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        let line = loom::sync::Arc::new(line(1));
        limit.fall_silent(Tick::ZERO);
        let answering = {
            let (limit, line) = (loom::sync::Arc::clone(&limit), loom::sync::Arc::clone(&line));
            thread::spawn(move || {
                if limit.release(Answered) {
                    line.wake();
                }
            })
        };
        let bell = Arc::<Bell>::default();
        let waiter = line.join(Priority::Normal, at(0), Tick::NEVER).unwrap();
        assert_eq!(poll(&line, &waiter, &bell, at(0)), Poll::Ready(Ok(())));
        let seen = limit.try_acquire(Priority::Normal, at(0)).is_ok();
        answering.join().unwrap();
        assert!(seen || bell.0.load(Std::SeqCst) == 1);
    });
}

/// What is told of as begun is told of as over, with the time it began.
#[test]
fn loom_a_silence_is_over_for_who_answers_if_it_was_one_for_who_noted_it() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        limit.fall_silent(at(0));
        let answering = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || {
                limit.release(Answered);
                limit.notes_answer(at(2 * SECOND))
            })
        };
        let begun = limit.notes_silence(at(SECOND));
        let over = answering.join().unwrap();
        assert!(begun.is_none_or(|lasts| lasts == Duration::from_secs(1)), "{begun:?}");
        assert_eq!(over, begun.map(|_| Duration::from_secs(2)));
        assert_eq!(limit.notes_answer(at(2 * SECOND)), None, "once");
    });
}

#[test]
fn loom_one_of_those_that_find_it_silent_tells_of_it() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        limit.fall_silent(at(0));
        let other = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || limit.notes_silence(at(SECOND)))
        };
        let told = [limit.notes_silence(at(SECOND)), other.join().unwrap()];
        assert_eq!(told.iter().flatten().count(), 1, "{told:?}");
    });
}

/// Whoever moves the limit, takes a place or gives one back leaves the note where it is.
#[test]
fn loom_a_silence_stays_noted_while_the_limit_and_the_places_move() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        limit.fall_silent(at(0));
        let moving = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || {
                limit.publish(Some(30));
                limit.overrun();
                limit.release(Unanswered)
            })
        };
        assert!(limit.notes_silence(at(SECOND)).is_some());
        moving.join().unwrap();
        assert!(limit.release(Answered));
        assert_eq!(limit.notes_answer(at(2 * SECOND)), Some(Duration::from_secs(2)));
    });
}

/// Whoever sees that four are unanswered sees since when.
#[test]
fn loom_nobody_takes_the_fourth_of_now_for_one_of_long_ago() {
    loom::model(|| {
        let limit = loom::sync::Arc::new(OverloadLimit::new(true));
        for _ in 0..3 {
            limit.try_acquire(Priority::Normal, at(0)).unwrap();
        }
        let other = {
            let limit = loom::sync::Arc::clone(&limit);
            thread::spawn(move || limit.try_acquire(Priority::Normal, at(SECOND)).is_ok())
        };
        assert!(limit.fourth_since().is_none_or(|since| since == at(SECOND)));
        assert!(other.join().unwrap());
        assert_eq!(limit.fourth_since(), Some(at(SECOND)));
    });
}
