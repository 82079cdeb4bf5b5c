//! Models for loom: writers and a reader on toy rings, in schedules of up to three preemptions, and in each with the
//! old values that the orderings let a load return. Loom runs a thread's operations in their order, so a load never
//! sees a store that comes later in the schedule: what hardware does early shows here as a load that reads old values.
//!
//! The reader does what the sampler does: it finds a row, asks how many of its trajectory follow, copies the row and
//! the last of these, settles, and asks whether the row lives. What it then accepts must be whole, as it was written,
//! and of one trajectory. For each ordering that is left out, a model must see this go wrong.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::model::Builder;
use loom::thread;

use crate::layout::{Column, DType, Field, Layout};
use crate::ring::{Place, Rings};
use crate::sync::{Half, OMITTED};

/// Words of a row's one column: two, so that it can be torn.
const WORDS: usize = 2;
const PREEMPTIONS: usize = 3;

/// What happens to the rings; the same to each.
#[derive(Clone, Copy)]
struct Scene {
    envs: usize,
    length: usize,
    /// Rows with which trajectories begin.
    starts: &'static [u64],
    /// Rows written before the reader begins.
    before: u64,
    /// Rows written meanwhile, by a writer for each environment.
    meanwhile: u64,
}

/// What the reader came across, over all interleavings.
#[derive(Default)]
struct Seen {
    /// Rows that lived.
    accepted: AtomicUsize,
    /// Rows with a later one of their trajectory.
    followed: AtomicUsize,
    /// Rows that were overwritten meanwhile.
    lapped: AtomicUsize,
    /// Slots where there was no row yet.
    vacant: AtomicUsize,
}

impl Seen {
    fn counts(&self) -> [usize; 4] {
        [&self.accepted, &self.followed, &self.lapped, &self.vacant].map(|count| count.load(Relaxed))
    }
}

impl Scene {
    /// Explores the scene once for each slot that the reader may look at.
    fn explore(self) -> Seen {
        let seen = Arc::new(Seen::default());
        for slot in 0..self.length {
            let seen = Arc::clone(&seen);
            let mut builder = Builder::new();
            builder.preemption_bound.get_or_insert(PREEMPTIONS);
            builder.check(move || {
                let toy = loom::sync::Arc::new(Toy::new(self));
                let rows = self.before..self.before + self.meanwhile;
                // The writers come first, one of them on this thread: loom looks for a race between a load and the
                // store before it, and a writer's own load would hide one between its store and a reader's load.
                let mut threads = Vec::new();
                for env in 1..self.envs {
                    let (toy, rows) = (loom::sync::Arc::clone(&toy), rows.clone());
                    threads.push(thread::spawn(move || toy.push(env, rows)));
                }
                let (reader, seen) = (loom::sync::Arc::clone(&toy), Arc::clone(&seen));
                threads.push(thread::spawn(move || (0..self.envs).for_each(|env| reader.look(env, slot, &seen))));
                toy.push(0, rows);
                for thread in threads {
                    thread.join().unwrap();
                }
            });
        }
        Arc::into_inner(seen).unwrap()
    }

    fn trajectory(&self, t: u64) -> usize {
        self.starts.iter().filter(|start| **start <= t).count()
    }
}

struct Toy {
    scene: Scene,
    rings: Rings,
    field: Field,
}

/// What row `t` holds. No word is that of another row, another place, or memory never written.
fn words(env: usize, t: u64) -> [u64; WORDS] {
    [1, 2].map(|word| 100 * (env as u64 + 1) + 10 * t + word)
}

impl Toy {
    fn new(scene: Scene) -> Self {
        let column = Column { name: "achieved_goal".into(), dtype: DType::U64, shape: vec![WORDS] };
        let layout = Layout::new(vec![column]).unwrap();
        let rings = Rings::new(&mut crate::storage::Source::Memory, scene.envs, scene.length, &layout).unwrap();
        let toy = Self { scene, rings, field: layout.fields()[0] };
        for env in 0..scene.envs {
            toy.push(env, 0..scene.before);
        }
        toy
    }

    fn push(&self, env: usize, rows: std::ops::Range<u64>) {
        for t in rows {
            let bytes: Vec<u8> = words(env, t).iter().flat_map(|word| word.to_ne_bytes()).collect();
            self.rings.push(env, self.scene.starts.contains(&t), |index| self.rings.write(index, self.field, &bytes));
        }
    }

    fn read(&self, place: Place) -> [u64; WORDS] {
        let mut bytes = [0; WORDS * 8];
        self.rings.read(self.rings.record(place), self.field, &mut bytes);
        let (words, _) = bytes.as_chunks::<8>();
        [words[0], words[1]].map(u64::from_ne_bytes)
    }

    /// Reads the row in a slot and the last that follows it, as the sampler does.
    fn look(&self, env: usize, slot: usize, seen: &Seen) {
        let count = |count: &AtomicUsize| count.fetch_add(1, Relaxed);
        let Some(row) = self.rings.find(env, slot) else {
            count(&seen.vacant);
            return;
        };
        let later = self.rings.later(row);
        let goal = self.rings.ahead(row, later);
        let (row_words, goal_words) = (self.read(row), self.read(goal));
        Rings::settle();
        if !self.rings.lives(env, row.t) {
            count(&seen.lapped);
            return;
        }
        count(&seen.accepted);
        assert_eq!(row_words, words(env, row.t), "accepted a row that is not row {} of env {env}", row.t);
        assert_eq!(goal_words, words(env, goal.t), "accepted a goal that is not row {} of env {env}", goal.t);
        // The goal is the last row of the trajectory among those that the reader knew to be published.
        let mine = self.scene.trajectory(row.t);
        let last = (row.t..=row.t + u64::from(row.newer)).filter(|t| self.scene.trajectory(*t) == mine).max();
        assert_eq!(Some(goal.t), last, "accepted a wrong goal for row {} of env {env}", row.t);
        if later > 0 {
            count(&seen.followed);
        }
    }
}

/// Rows come into empty slots; the second begins no trajectory, the third does.
const FILL: Scene = Scene { envs: 1, length: 3, starts: &[0, 2], before: 1, meanwhile: 2 };
/// Rows come into slots whose rows are being read; the last one overwrites a slot for the second time.
const WRAP: Scene = Scene { envs: 1, length: 2, starts: &[0], before: 2, meanwhile: 3 };
/// Trajectories end while they are read, and the table of ends is used again.
const ENDS: Scene = Scene { envs: 1, length: 2, starts: &[0, 1, 2, 4], before: 2, meanwhile: 3 };
/// Two rings are written at once, and wrap.
const LANES: Scene = Scene { envs: 2, length: 2, starts: &[0, 2], before: 2, meanwhile: 1 };

#[test]
fn a_row_appears_whole() {
    let [accepted, followed, lapped, vacant] = FILL.explore().counts();
    assert!(accepted > 0 && followed > 0 && lapped == 0 && vacant > 0);
}

#[test]
fn a_row_that_was_overwritten_is_not_accepted() {
    let [accepted, followed, lapped, vacant] = WRAP.explore().counts();
    assert!(accepted > 0 && followed > 0 && lapped > 0 && vacant == 0);
}

#[test]
fn a_goal_is_of_its_rows_trajectory() {
    let [accepted, followed, lapped, vacant] = ENDS.explore().counts();
    assert!(accepted > 0 && followed > 0 && lapped > 0 && vacant == 0);
}

#[test]
fn lanes_do_not_disturb_each_other() {
    let [accepted, followed, lapped, vacant] = LANES.explore().counts();
    assert!(accepted > 0 && followed > 0 && lapped > 0 && vacant == 0);
}

/// Explores a scene without one of the orderings.
fn explore_without(half: Half, scene: Scene) {
    OMITTED.set(Some(half));
    scene.explore();
}

#[test]
#[should_panic(expected = "accepted a")]
fn notices_a_publication_that_does_not_release() {
    explore_without(Half::Publish, FILL);
}

#[test]
#[should_panic(expected = "accepted a")]
fn notices_a_reader_that_does_not_acquire() {
    explore_without(Half::Published, FILL);
}

#[test]
#[should_panic(expected = "accepted a")]
fn notices_a_claim_without_its_fence() {
    explore_without(Half::AfterClaim, WRAP);
}

#[test]
#[should_panic(expected = "accepted a")]
fn notices_a_check_without_its_fence() {
    explore_without(Half::BeforeCheck, WRAP);
}
