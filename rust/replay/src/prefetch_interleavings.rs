//! Models for loom of the loader's ring: one thread fills slots, another takes them, reads them and gives them back, in
//! schedules of up to three preemptions. Batches must come in turn, and all of them; a slot must keep its batch for as
//! long as it is taken; and nobody may wait for ever, which loom calls a deadlock. Each model must notice what could
//! break it.
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::model::Builder;
use loom::thread;

use crate::error::Error;
use crate::prefetch::Prefetch;
use crate::sync::{AtomicU64, Half, OMITTED};

const PREEMPTIONS: usize = 3;
/// Numbers of the batches; no slot is born with one of them.
const BATCHES: Range<u64> = 10..13;

/// What the two sides do.
#[derive(Clone, Copy)]
struct Scene {
    /// Slots of the ring, and those that there is memory for.
    slots: usize,
    memory: usize,
    /// The batch that cannot be filled.
    fails_at: Option<u64>,
    /// Batches after which the consumer stops; all are taken where it is more than there are.
    stops_after: u64,
    /// The consumer gives a slot back only when it has read it, as it should.
    reads_first: bool,
}

const SCENE: Scene = Scene { slots: 2, memory: 2, fails_at: None, stops_after: u64::MAX, reads_first: true };

/// A ring, and the memory of its slots: two words each, so that a batch can be torn.
struct Toy {
    turns: Prefetch,
    slots: Vec<[AtomicU64; 2]>,
}

impl Toy {
    fn fill(&self, number: u64, slot: usize) {
        self.slots[slot % self.slots.len()].iter().for_each(|word| word.store(number, Relaxed));
    }

    fn take(&self, reads_first: bool) -> Option<[u64; 2]> {
        let slot = self.turns.take().unwrap()?;
        let read = || self.slots[slot % self.slots.len()].each_ref().map(|word| word.load(Relaxed));
        let words = reads_first.then(read);
        self.turns.give_back();
        words.or_else(|| Some(read()))
    }
}

impl Scene {
    /// Explores the scene, and says how many batches the first thread filled, at least and at most.
    fn explore(self) -> [usize; 2] {
        let filled = Arc::new([usize::MAX, 0].map(AtomicUsize::new));
        let counts = Arc::clone(&filled);
        let mut builder = Builder::new();
        builder.preemption_bound.get_or_insert(PREEMPTIONS);
        builder.check(move || {
            let slots = (0..self.memory).map(|_| [0, 0].map(AtomicU64::new)).collect();
            // Not loom's own Arc, which cannot be dropped in a deadlock.
            let toy = Arc::new(Toy { turns: Prefetch::new(self.slots).unwrap(), slots });
            let filler = Arc::clone(&toy);
            let filler = thread::spawn(move || self.run(&filler));
            self.consume(&toy);
            let count = filler.join().unwrap();
            counts[0].fetch_min(count, Relaxed);
            counts[1].fetch_max(count, Relaxed);
        });
        filled.each_ref().map(|count| count.load(Relaxed))
    }

    fn run(self, toy: &Toy) -> usize {
        let mut count = 0;
        let ended = toy.turns.run(BATCHES, |number, slot| {
            if self.fails_at == Some(number) {
                return Err(Error::Busy("asked to".into()));
            }
            toy.fill(number, slot);
            count += 1;
            Ok(())
        });
        assert_eq!(ended.is_err(), self.fails_at.is_some());
        count
    }

    fn consume(self, toy: &Toy) {
        let batches = BATCHES.start..self.fails_at.unwrap_or(BATCHES.end);
        for (taken, number) in (0..).zip(batches) {
            if taken == self.stops_after {
                toy.turns.stop();
                return;
            }
            assert_eq!(toy.take(self.reads_first), Some([number; 2]), "took another batch than number {number}");
        }
        assert_eq!(toy.take(true), None);
        assert!(!toy.turns.is_ready());
    }
}

#[test]
fn batches_come_in_turn_and_whole() {
    for slots in [1, 2] {
        assert_eq!(Scene { slots, memory: slots, ..SCENE }.explore(), [3, 3]);
    }
}

#[test]
fn an_error_comes_after_the_batches_before_it() {
    assert_eq!(Scene { fails_at: Some(11), ..SCENE }.explore(), [1, 1]);
}

#[test]
fn a_consumer_that_stops_ends_the_run() {
    // With one batch taken and given back and two slots, none to two further batches are filled.
    assert_eq!(Scene { stops_after: 1, ..SCENE }.explore(), [1, 3]);
    assert_eq!(Scene { stops_after: 0, ..SCENE }.explore(), [0, 2]);
}

#[test]
#[should_panic(expected = "took another batch")]
fn notices_a_slot_that_is_given_back_before_it_was_read() {
    Scene { reads_first: false, ..SCENE }.explore();
}

#[test]
#[should_panic(expected = "took another batch")]
fn notices_a_slot_that_is_filled_before_it_was_given_back() {
    Scene { memory: 1, ..SCENE }.explore();
}

#[test]
#[should_panic(expected = "deadlock")]
fn notices_a_change_that_wakes_nobody() {
    OMITTED.set(Some(Half::Notify));
    SCENE.explore();
}
