//! What the last calls came to: a ring of bits, for windows counted in calls.

/// The last `size` outcomes. A new one pushes the oldest out.
///
/// One bit a call says whether it failed, and with the slow-call rule another whether it was slow:
/// `size / 8` bytes each, allocated once.
#[derive(Debug)]
pub(super) struct LastCalls {
    failed: Bits,
    slow: Option<Bits>,
    size: u32,
    /// Where the next outcome goes; once the ring is full, where the oldest is.
    next: u32,
    len: u32,
}

impl LastCalls {
    /// An empty ring for `size` outcomes.
    pub(super) fn new(size: u32, judges_slowness: bool) -> Self {
        let slow = judges_slowness.then(|| Bits::new(size));
        Self { failed: Bits::new(size), slow, size, next: 0, len: 0 }
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn push(&mut self, failed: bool, slow: bool) {
        self.failed.set(self.next, failed);
        if let Some(bits) = &mut self.slow {
            bits.set(self.next, slow);
        }
        self.len = self.size.min(self.len + 1);
        self.next = if self.next + 1 == self.size { 0 } else { self.next + 1 };
    }

    /// Makes the newest success a failure; false when there is none.
    pub(super) fn revise(&mut self) -> bool {
        let before = |at: u32| if at == 0 { self.size - 1 } else { at - 1 };
        let newest = std::iter::successors(Some(before(self.next)), |at| Some(before(*at)));
        let Some(at) = newest.take(self.len as usize).find(|at| !self.failed.get(*at)) else { return false };
        self.failed.set(at, true);
        true
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.size, self.slow.is_some());
    }

    /// Begins, or ceases, to remember which calls were slow.
    pub(super) fn judge_slowness(&mut self, judges: bool) {
        if judges != self.slow.is_some() {
            self.slow = judges.then(|| Bits::new(self.size));
        }
    }

    pub(super) const fn failures(&self) -> u32 {
        self.failed.ones
    }

    pub(super) const fn successes(&self) -> u32 {
        self.len - self.failed.ones
    }

    pub(super) fn slow(&self) -> u32 {
        self.slow.as_ref().map_or(0, |bits| bits.ones)
    }
}

/// Bits, and how many of them are set.
#[derive(Debug)]
struct Bits {
    words: Box<[u64]>,
    ones: u32,
}

impl Bits {
    fn new(size: u32) -> Self {
        Self { words: vec![0; size.div_ceil(u64::BITS) as usize].into(), ones: 0 }
    }

    fn get(&self, at: u32) -> bool {
        self.words.get((at / u64::BITS) as usize).is_some_and(|word| word & 1 << (at % u64::BITS) != 0)
    }

    fn set(&mut self, at: u32, value: bool) {
        let Some(word) = self.words.get_mut((at / u64::BITS) as usize) else { return };
        let bit = 1 << (at % u64::BITS);
        self.ones -= u32::from(*word & bit != 0);
        self.ones += u32::from(value);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_exactly_the_last_outcomes(
            size in 1_u32..200,
            outcomes in prop::collection::vec((any::<bool>(), any::<bool>()), 0..700),
            cleared_at in 0_usize..700,
        ) {
            let (mut last_calls, mut last) = (LastCalls::new(size, true), VecDeque::new());
            for (n, (failed, slow)) in outcomes.into_iter().enumerate() {
                if n == cleared_at {
                    last_calls.clear();
                    last.clear();
                }
                last_calls.push(failed, slow);
                last.push_back((failed, slow));
                if last.len() > size as usize {
                    last.pop_front();
                }
                let count = |of: fn(&(bool, bool)) -> bool| last.iter().filter(|outcome| of(outcome)).count() as u32;
                prop_assert_eq!(last_calls.failures(), count(|(failed, _)| *failed));
                prop_assert_eq!(last_calls.successes(), count(|(failed, _)| !failed));
                prop_assert_eq!(last_calls.slow(), count(|(_, slow)| *slow));
            }
        }
    }

    #[test]
    fn takes_a_bit_a_call_and_no_more() {
        let last_calls = LastCalls::new(100_000, false);
        assert_eq!(last_calls.failed.words.len(), 100_000_usize.div_ceil(64));
        assert!(last_calls.slow.is_none());
    }

    #[test]
    fn slowness_is_remembered_from_when_it_is_asked_for() {
        let mut last_calls = LastCalls::new(4, false);
        last_calls.push(false, true);
        last_calls.judge_slowness(true);
        last_calls.push(true, true);
        assert_eq!((last_calls.slow(), last_calls.failures(), last_calls.successes()), (1, 1, 1));
        last_calls.judge_slowness(false);
        assert_eq!((last_calls.slow(), last_calls.failures(), last_calls.successes()), (0, 1, 1));
    }
}
