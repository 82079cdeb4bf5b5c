//! Batches filled ahead: one thread fills a ring of slots in turn, another takes them in the same order.
//!
//! A slot is filled again only after it was given back, so a consumer decides how long it needs the memory.
use std::ops::Range;
use std::process;
use std::sync::PoisonError;

use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, MutexGuard, is_taken_down, notify};

/// The turns of a ring of slots, for one run of batches. The memory itself belongs to the thread that fills.
pub struct Prefetch {
    slots: u64,
    turns: Mutex<Turns>,
    changed: Condvar,
    /// The process whose thread fills.
    process: u32,
}

/// Slots filled, taken and given back, since the beginning.
#[derive(Default)]
struct Turns {
    filled: u64,
    taken: u64,
    emptied: u64,
    /// Nobody will fill a slot any more.
    ended: bool,
    /// No further slot is wanted.
    stopped: bool,
}

impl Prefetch {
    /// A ring of empty slots.
    ///
    /// # Errors
    /// `Invalid` for no slot.
    pub fn new(slots: usize) -> Result<Self> {
        if slots == 0 {
            return Err(Error::Invalid("slots: expected at least 1; got 0".into()));
        }
        let (turns, changed) = (Mutex::new(Turns::default()), Condvar::new());
        Ok(Self { slots: slots as u64, turns, changed, process: process::id() })
    }

    /// Calls `fill(number, slot)` for each number, as slots become free, until all are filled or the consumer stops.
    /// To be called once, by the thread that fills.
    ///
    /// # Errors
    /// That of `fill`, which ends the run.
    pub fn run(&self, numbers: Range<u64>, mut fill: impl FnMut(u64, usize) -> Result<()>) -> Result<()> {
        let _ended = Ended(self);
        for number in numbers {
            let turns = self.wait(|turns| turns.stopped || turns.filled - turns.emptied < self.slots);
            if turns.stopped {
                return Ok(());
            }
            let slot = self.slot(turns.filled);
            drop(turns);
            fill(number, slot)?;
            self.change(|turns| turns.filled += 1);
        }
        Ok(())
    }

    /// The next filled slot, once it is filled; `None` if the run has ended or was stopped, and all were taken.
    ///
    /// # Errors
    /// `Busy` in a process that was forked from the one whose thread fills.
    pub fn take(&self) -> Result<Option<usize>> {
        if self.is_foreign() {
            return Err(Error::Busy(
                "loader: this process was forked while the loader ran in its parent; start a new iteration here".into(),
            ));
        }
        let mut turns = self.wait(|turns| turns.ended || turns.stopped || turns.taken < turns.filled);
        if turns.taken == turns.filled {
            return Ok(None);
        }
        turns.taken += 1;
        Ok(Some(self.slot(turns.taken - 1)))
    }

    /// Whether [`Prefetch::take`] would give a slot without waiting.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_foreign() && {
            let turns = self.lock();
            turns.taken < turns.filled
        }
    }

    /// Gives back the slot that was taken first.
    pub fn give_back(&self) {
        self.change(|turns| turns.emptied = (turns.emptied + 1).min(turns.taken));
    }

    /// Ends the run after the batch that is being filled.
    pub fn stop(&self) {
        self.change(|turns| turns.stopped = true);
    }

    /// Whether this is a forked child: the thread did not come along, and may have held the lock when it was left.
    fn is_foreign(&self) -> bool {
        self.process != process::id()
    }

    #[allow(clippy::cast_possible_truncation)] // Below the number of slots, which was a usize.
    fn slot(&self, turn: u64) -> usize {
        (turn % self.slots) as usize
    }

    fn change(&self, change: impl FnOnce(&mut Turns)) {
        if !self.is_foreign() {
            change(&mut self.lock());
            notify(&self.changed);
        }
    }

    fn wait(&self, until: impl Fn(&Turns) -> bool) -> MutexGuard<'_, Turns> {
        let mut turns = self.lock();
        while !until(&turns) {
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        turns
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the consumer that the thread which fills has ended, even by a panic.
struct Ended<'a>(&'a Prefetch);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if !is_taken_down() {
            self.0.change(|turns| turns.ended = true);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::thread;

    use super::*;

    #[test]
    fn slots_come_in_turn_and_none_is_filled_before_it_is_given_back() {
        for slots in 1..=4 {
            let prefetch = Prefetch::new(slots).unwrap();
            let (filled, given_back) = (AtomicU64::new(0), AtomicU64::new(0));
            thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    prefetch.run(100..200, |number, slot| {
                        assert_eq!(slot as u64, (number - 100) % slots as u64);
                        let ahead = filled.fetch_add(1, SeqCst) - given_back.load(SeqCst);
                        assert!(ahead < slots as u64, "a slot was filled while it was taken");
                        Ok(())
                    })
                });
                for turn in 0..100 {
                    assert_eq!(prefetch.take().unwrap(), Some(turn % slots));
                    assert!(filled.load(SeqCst) > turn as u64);
                    given_back.fetch_add(1, SeqCst);
                    prefetch.give_back();
                }
                assert_eq!(prefetch.take().unwrap(), None);
                assert!(!prefetch.is_ready());
                thread.join().unwrap().unwrap();
            });
        }
        assert!(Prefetch::new(0).is_err());
    }

    #[test]
    fn what_was_filled_comes_before_the_end_and_an_error_or_a_panic_is_an_end() {
        for panics in [false, true] {
            let prefetch = Prefetch::new(3).unwrap();
            thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    prefetch.run(0..9, |number, _| match number {
                        2 if panics => panic!("asked to"),
                        2 => Err(Error::Busy("asked to".into())),
                        _ => Ok(()),
                    })
                });
                assert_eq!([(); 3].map(|()| prefetch.take().unwrap()), [Some(0), Some(1), None]);
                match thread.join() {
                    Ok(result) => assert!(matches!(result, Err(Error::Busy(_))) && !panics),
                    Err(_) => assert!(panics),
                }
            });
        }
    }

    #[test]
    fn a_consumer_that_stops_ends_a_filler_that_waits() {
        let prefetch = Prefetch::new(1).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| prefetch.run(0..u64::MAX, |_, _| Ok(())));
            assert_eq!(prefetch.take().unwrap(), Some(0));
            prefetch.stop();
            thread.join().unwrap().unwrap();
        });
        assert_eq!(prefetch.take().unwrap(), None);
    }
}
