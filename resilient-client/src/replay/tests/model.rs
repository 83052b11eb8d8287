//! Random scripts, readers and interleavings against a model that knows only frames, positions and
//! costs.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a test does next, to some reader.
#[derive(Clone, Debug)]
enum Act {
    Start,
    Poll(Index),
    /// Polls it only if it has been woken since it was last pending, as a runtime would.
    Run(Index),
    Drop(Index),
    DropTemplate,
    GoOn,
}

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    tells_its_end: bool,
    limit: usize,
    process: usize,
    acts: Vec<Act>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..400).prop_map(block),
        3 => Just(Step::Wait),
        1 => (1usize..8).prop_map(|length| data(&"abcdefgh"[..length])),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Start),
        8 => any::<Index>().prop_map(Act::Poll),
        8 => any::<Index>().prop_map(Act::Run),
        1 => any::<Index>().prop_map(Act::Drop),
        1 => Just(Act::DropTemplate),
        4 => Just(Act::GoOn),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let end = prop_oneof![
        4 => Just(None),
        2 => Just(Some(trailers("abc"))),
        1 => Just(Some(Step::Fail)),
        1 => Just(Some(Step::Panic)),
    ];
    let limit = || prop_oneof![0usize..300, 300usize..2_000, Just(1_000_000)];
    let acts = prop::collection::vec(act(), 0..80);
    (prop::collection::vec(step(), 0..12), end, any::<bool>(), limit(), limit(), acts).prop_map(
        |(mut steps, end, tells_its_end, limit, process, acts)| {
            steps.extend(end);
            Case { steps, tells_its_end, limit, process, acts }
        },
    )
}

/// A reader and what the model knows of it.
struct Known {
    reader: Reader,
    seen: Vec<Piece>,
    /// Pending, and not woken since.
    asleep: bool,
    cut: bool,
    over: bool,
}

/// The model: frames, and who is where.
struct Model {
    case: Case,
    pieces: Vec<Piece>,
    memory: &'static ReplayMemory,
    remote: Arc<Remote>,
    template: Option<Known>,
    readers: Vec<Known>,
    /// Frames read from the source.
    produced: usize,
    overflowed: bool,
    failed: bool,
}

impl Known {
    fn of(reader: Reader) -> Self {
        Self { reader, seen: Vec::new(), asleep: false, cut: false, over: false }
    }
}

impl Model {
    fn new(case: Case) -> Self {
        let mut source = Source::new(case.steps.clone());
        source.tells_its_end = case.tells_its_end;
        let pieces = case.steps.iter().filter_map(|step| match step {
            Step::Piece(piece) => Some(piece.clone()),
            _ => None,
        });
        let pieces = pieces.collect();
        let memory = memory(case.process);
        let (template, remote) = template(source, case.limit, memory);
        let template = Some(Known::of(template));
        Self {
            case,
            pieces,
            memory,
            remote,
            template,
            readers: Vec::new(),
            produced: 0,
            overflowed: false,
            failed: false,
        }
    }

    fn everyone(&self) -> impl Iterator<Item = &Known> {
        self.template.iter().chain(&self.readers)
    }

    /// What must be kept: everything from the slowest reader to the source.
    fn kept(&self) -> usize {
        if self.overflowed {
            return 0;
        }
        let slowest = self.everyone().map(|known| known.seen.len()).min().unwrap_or(self.produced);
        self.pieces[slowest..self.produced].iter().map(Piece::cost).sum()
    }

    fn poll(&mut self, index: usize) {
        let before = self.kept();
        let got = self.readers[index].reader.poll();
        let others = self.template.iter().count() + self.readers.len() - 1;
        let known = &mut self.readers[index];
        if known.cut && !known.over {
            assert_eq!(got, Got::CutOff);
            known.over = true;
            return;
        }
        match got {
            Got::Pending => known.asleep = true,
            Got::Piece(piece) => {
                assert!(!known.over);
                assert_eq!(piece, self.pieces[known.seen.len()], "the source's frames, in order");
                known.seen.push(piece.clone());
                known.asleep = false;
                if known.seen.len() > self.produced {
                    self.produced += 1;
                    let needed = before + piece.cost();
                    if others > 0 && !self.overflowed && needed > self.case.limit.min(self.case.process) {
                        self.overflowed = true;
                        let everyone = self.readers.iter_mut().enumerate();
                        everyone.filter(|(other, _)| *other != index).for_each(|(_, other)| other.cut = true);
                    }
                }
            }
            Got::End => {
                if !known.over {
                    assert_eq!(known.seen, self.pieces, "the end comes after everything");
                    assert!(!matches!(self.case.steps.last(), Some(Step::Fail | Step::Panic)));
                }
                known.over = true;
            }
            Got::Failed(_) => {
                assert!(!known.over, "an error comes once");
                assert_eq!(known.seen, self.pieces, "after everything that came before it");
                assert!(matches!(self.case.steps.last(), Some(Step::Fail | Step::Panic)));
                known.over = true;
                self.failed = true;
            }
            Got::CutOff => panic!("cut off although it fitted"),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Start => {
                let Some(template) = &self.template else { return };
                let replayed = template.reader.body.replay();
                assert_eq!(replayed.is_some(), template.reader.body.is_replayable());
                assert_eq!(replayed.is_some(), !self.overflowed && !self.failed);
                if self.readers.len() < 3 {
                    self.readers.extend(replayed.map(|body| Known::of(Reader::of(body))));
                }
            }
            Act::Poll(index) if !self.readers.is_empty() => self.poll(index.index(self.readers.len())),
            Act::Run(index) if !self.readers.is_empty() => {
                self.run(index.index(self.readers.len()));
            }
            Act::Drop(index) if !self.readers.is_empty() => {
                self.readers.swap_remove(index.index(self.readers.len()));
            }
            Act::DropTemplate => self.template = None,
            Act::GoOn => self.remote.go_on(),
            Act::Poll(_) | Act::Run(_) | Act::Drop(_) => {}
        }
        assert_eq!(self.memory.used(), self.kept(), "counted exactly");
        assert!(self.memory.used() <= self.case.limit.min(self.case.process));
    }

    /// Polls a reader if a runtime would.
    fn run(&mut self, index: usize) -> bool {
        let known = &mut self.readers[index];
        let due = !known.over && (!known.asleep || known.reader.was_woken());
        if due {
            known.asleep = false;
            self.poll(index);
        }
        due
    }

    /// Runs everyone but those that stall until nobody has anything to do.
    fn finish(&mut self, stalls: impl Fn(usize) -> bool) {
        for _ in 0..=self.case.steps.len() {
            self.remote.go_on();
            let mut polls = 0;
            while (0..self.readers.len()).filter(|index| !stalls(*index)).any(|index| self.run(index)) {
                polls += 1;
                assert!(polls < 10_000, "busy");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_reader_sees_the_source_or_is_told_why_not(case in case(), stalls in any::<[bool; 3]>()) {
        let mut model = Model::new(case);
        let acts = model.case.acts.clone();
        for act in &acts {
            model.act(act);
        }
        model.finish(|index| stalls[index % 3]);
        for (index, known) in model.readers.iter().enumerate() {
            prop_assert!(known.over || stalls[index % 3], "reader {index} was never woken");
        }
        let whole = model.readers.iter().filter(|known| known.over && !known.cut).count();
        prop_assert!(!model.overflowed || whole <= 1);
        let memory = model.memory;
        let remote = Arc::clone(&model.remote);
        drop(model);
        prop_assert_eq!(memory.used(), 0);
        prop_assert!(remote.is_gone());
    }
}
