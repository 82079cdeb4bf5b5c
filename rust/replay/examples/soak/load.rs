//! Writers and samplers on one buffer, and what they find.
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crl_replay::goal::{Goals, Strategy};
use crl_replay::{Buffer, Config};

use super::latency::{Latency, Stopwatch};
use super::rows::{self, Id};

/// Steps that a writer adds at once, now and then.
const ROLLOUT: u64 = 16;
/// Rows of a batch: several blocks of the sampler, and a last one that is not full.
pub const BATCH: usize = 1000;

/// What is wrong with sampled rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Rows, next rows and goals with parts of several rows.
    pub torn: u64,
    /// Next rows and goals of another trajectory, or not where the offset says; offsets that the law cannot give.
    pub foreign: u64,
    /// Rows that had been overwritten before the sampler was called, or were not yet written when it returned.
    pub stale: u64,
    /// Stored rows that cannot be found, rows in two places, wrong counts.
    pub lost: u64,
    /// Calls that failed.
    pub refused: u64,
}

impl AddAssign for Defects {
    fn add_assign(&mut self, other: Self) {
        self.torn += other.torn;
        self.foreign += other.foreign;
        self.stale += other.stale;
        self.lost += other.lost;
        self.refused += other.refused;
    }
}

/// What came of some time of writing and sampling.
#[derive(Clone, Default)]
pub struct Tally {
    pub sampled: u64,
    pub written: u64,
    pub defects: Defects,
    pub latency: Latency,
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.sampled += other.sampled;
        self.written += other.written;
        self.defects += other.defects;
        self.latency += &other.latency;
    }
}

/// How far a writer has come, in rows of each of its lanes.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    done: AtomicU64,
}

/// A buffer whose rows tell what they are.
pub struct Soak {
    buffer: Arc<Buffer>,
    length: u64,
    /// Of each writer; they share the lanes evenly.
    progress: Vec<Progress>,
}

impl Soak {
    /// `lanes` rings of `length` rows, written by `writers` threads.
    pub fn new(lanes: usize, length: usize, writers: usize) -> Self {
        assert!(lanes.is_multiple_of(writers), "expected writers to share {lanes} lanes evenly; got {writers}");
        let config = Config {
            num_envs: lanes,
            capacity: lanes * length,
            columns: rows::columns(),
            seed: length as u64,
            check_finite: true,
            threads: 1,
        };
        let buffer = Arc::new(Buffer::new(config).expect("a buffer"));
        let progress = (0..writers).map(|_| Progress::default()).collect();
        let soak = Self { buffer, length: length as u64, progress };
        // Two rows: from the start there is something to sample.
        for writer in 0..writers {
            soak.write(writer, 2, &mut Tally::default());
        }
        soak
    }

    fn lanes_each(&self) -> u64 {
        (self.buffer.config().num_envs / self.progress.len()) as u64
    }

    fn progress_of(&self, lane: u64) -> &Progress {
        &self.progress[index(lane / self.lanes_each())]
    }

    /// Writes and samples for a while, with a thread for each writer and sampler.
    pub fn run(&self, samplers: usize, time: Duration) -> Tally {
        let stop = AtomicBool::new(false);
        let stopped = || stop.load(Ordering::Relaxed);
        let mut tally = Tally::default();
        thread::scope(|scope| {
            let writers =
                (0..self.progress.len()).map(|writer| scope.spawn(move || self.keep_writing(writer, stopped)));
            let mut threads: Vec<_> = writers.collect();
            threads.extend((0..samplers).map(|first| scope.spawn(move || self.keep_sampling(first, stopped))));
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                tally += &thread.join().expect("a thread that did not panic");
            }
        });
        tally
    }

    // --- writing ---------------------------------------------------------------------------------------------------

    fn keep_writing(&self, writer: usize, stopped: impl Fn() -> bool) -> Tally {
        let mut tally = Tally::default();
        for call in 0_u64.. {
            if stopped() {
                break;
            }
            self.write(writer, if call % 64 == 63 { ROLLOUT } else { 1 }, &mut tally);
        }
        tally
    }

    /// Adds the next `steps` rows of the writer's lanes. The latency is that of single steps.
    fn write(&self, writer: usize, steps: u64, tally: &mut Tally) {
        let (progress, lanes) = (&self.progress[writer], self.lanes_each());
        let first = progress.done.load(Ordering::Relaxed);
        let (mut columns, mut starts) = (<[Vec<u8>; 4]>::default(), Vec::new());
        let range = writer as u64 * lanes..(writer as u64 + 1) * lanes;
        for number in first..first + steps {
            for lane in range.clone() {
                rows::append(lane, number, &mut columns);
                starts.push(u8::from(rows::starts(lane, number)));
            }
        }
        let slices = columns.each_ref().map(Vec::as_slice);
        let mut writer = self.buffer.writer(index(range.start), index(range.end)).expect("its lanes are nobody else's");
        progress.begun.store(first + steps, Ordering::Relaxed);
        let watch = Stopwatch::start();
        let added = writer.add(index(steps), &slices, &starts);
        if steps == 1 {
            watch.stop(&mut tally.latency);
        }
        // Release: a sampler that knows of these rows must find them.
        progress.done.store(first + steps, Ordering::Release);
        tally.defects.refused += u64::from(added.is_err());
        tally.written += steps * lanes;
    }

    // --- sampling --------------------------------------------------------------------------------------------------

    fn keep_sampling(&self, first: usize, stopped: impl Fn() -> bool) -> Tally {
        let one = |strategy| vec![(strategy, 1.0)];
        let all = [Strategy::Geometric, Strategy::Uniform, Strategy::Final, Strategy::Next, Strategy::Random];
        let mut kinds: Vec<_> = all.map(one).into();
        kinds.push(all.map(|strategy| (strategy, 0.2)).into());
        let mut samplers: Vec<_> = kinds.iter().map(|weights| Batch::new(self, weights)).collect();
        let mut tally = Tally::default();
        for call in first.. {
            if stopped() {
                break;
            }
            samplers[call % kinds.len()].sample(&mut tally);
        }
        tally
    }

    /// Looks for every row that must be stored now that nobody writes.
    pub fn audit(&self) -> Defects {
        let mut defects = Defects::default();
        let lanes = self.buffer.config().num_envs as u64;
        let numbers: Vec<_> = (0..lanes).map(|lane| self.progress_of(lane).done.load(Ordering::Acquire)).collect();
        let stored: u64 = numbers.iter().map(|n| n.min(&self.length)).sum();
        let right = self.buffer.rows() == stored && self.buffer.rows_written() == numbers.iter().sum::<u64>();
        defects.lost += u64::from(!right);

        // A goal of this strategy is any stored row. The last one is missed by this many draws once in e²⁰ audits.
        let mut seen: Vec<Vec<bool>> = numbers.iter().map(|n| vec![false; index(*n.min(&self.length))]).collect();
        let mut batch = Batch::new(self, &[(Strategy::Random, 1.0)]);
        let mut missing = stored;
        let draws = stored * u64::from(64 - stored.leading_zeros() + 20);
        for _ in 0..draws.div_ceil(BATCH as u64) {
            let mut tally = Tally::default();
            batch.sample(&mut tally);
            defects += tally.defects;
            for row in 0..BATCH {
                let Some(Id { lane, number }) = batch.goal(row) else { continue };
                let oldest = numbers[index(lane)].saturating_sub(self.length);
                match number.checked_sub(oldest).and_then(|at| seen[index(lane)].get_mut(index(at))) {
                    Some(seen) => missing -= u64::from(!std::mem::replace(seen, true)),
                    None => defects.stale += 1,
                }
            }
            if missing == 0 {
                break;
            }
        }
        defects.lost += missing;
        defects
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("an index")
}

/// A request and the memory that it fills.
struct Batch<'a> {
    soak: &'a Soak,
    goals: Vec<Strategy>,
    request: crl_replay::sample::Request,
    memory: Vec<Vec<u8>>,
}

impl<'a> Batch<'a> {
    fn new(soak: &'a Soak, weights: &[(Strategy, f64)]) -> Self {
        let goals = Goals::new(0.98, weights).expect("goals");
        let request = soak.buffer.request(goals, &[rows::names(), vec!["offset".into()]].concat()).expect("a request");
        let memory = request.outputs().iter().map(|output| vec![0; BATCH * output.bytes()]).collect();
        Self { soak, goals: weights.iter().map(|(goal, _)| *goal).collect(), request, memory }
    }

    fn sample(&mut self, tally: &mut Tally) {
        let counts = |of: fn(&Progress) -> &AtomicU64, ordering| -> Vec<u64> {
            self.soak.progress.iter().map(|progress| of(progress).load(ordering)).collect()
        };
        let before = counts(|progress| &progress.done, Ordering::Acquire);
        let mut outputs: Vec<&mut [u8]> = self.memory.iter_mut().map(Vec::as_mut_slice).collect();
        let sampled = self.soak.buffer.sample(&self.request, BATCH, 1, None, &mut outputs);
        let begun = counts(|progress| &progress.begun, Ordering::Relaxed);
        if sampled.is_err() {
            tally.defects.refused += 1;
            return;
        }
        tally.sampled += BATCH as u64;
        let each = self.soak.lanes_each();
        for row in 0..BATCH {
            let seen =
                Seen { row: self.id(row, 0), next: self.id(row, 4), goal: self.id(row, 8), offset: self.offset(row) };
            let writer = |id: Id| index(id.lane / each);
            let known = |id: Id| Known { done: before[writer(id)], begun: begun[writer(id)], length: self.soak.length };
            tally.defects += seen.judge(&self.goals, known);
        }
    }

    fn id(&self, row: usize, first: usize) -> Option<Id> {
        rows::read(std::array::from_fn(|column| {
            let bytes = self.request.outputs()[first + column].bytes();
            &self.memory[first + column][row * bytes..(row + 1) * bytes]
        }))
    }

    fn goal(&self, row: usize) -> Option<Id> {
        self.id(row, 8)
    }

    fn offset(&self, row: usize) -> i32 {
        i32::from_ne_bytes(*self.memory[12][row * 4..].first_chunk().expect("an offset"))
    }
}

/// What was known of a lane: rows written before the sampler was called, and rows begun when it had returned.
#[derive(Clone, Copy)]
pub struct Known {
    pub done: u64,
    pub begun: u64,
    pub length: u64,
}

/// One sampled row; `None` is a torn one.
#[derive(Clone, Copy)]
pub struct Seen {
    pub row: Option<Id>,
    pub next: Option<Id>,
    pub goal: Option<Id>,
    pub offset: i32,
}

impl Seen {
    pub fn judge(&self, goals: &[Strategy], known: impl Fn(Id) -> Known) -> Defects {
        let mut defects = Defects::default();
        let (Some(row), Some(next), Some(goal)) = (self.row, self.next, self.goal) else {
            defects.torn = 1;
            return defects;
        };
        let stale = |id: Id| {
            let Known { done, begun, length } = known(id);
            id.number + length < done || id.number >= begun
        };
        defects.stale = u64::from([row, next, goal].into_iter().any(stale));

        // The row `k` later in the same trajectory.
        let later =
            |id: Id, k: u64| id == Id { lane: row.lane, number: row.number + k } && id.trajectory() == row.trajectory();
        let mut right = later(next, 1);
        right &= match u64::try_from(self.offset) {
            Err(_) => false,
            Ok(0) => goals.contains(&Strategy::Random),
            Ok(k) => later(goal, k) && goals.iter().any(|strategy| *strategy != Strategy::Random),
        };
        if let [strategy] = goals {
            // The last row of a trajectory, or of what the sampler knew of it, which is at least what we knew.
            let last = || rows::starts(goal.lane, goal.number + 1) || goal.number + 1 >= known(goal).done;
            right &= match strategy {
                Strategy::Final => last(),
                Strategy::Next => self.offset == 1,
                _ => true,
            };
        }
        defects.foreign = u64::from(!right);
        defects
    }
}
