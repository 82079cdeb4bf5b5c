//! Random schedules for shuttle: the whole buffer, with two writers and two samplers or a snapshot, switched between at
//! any access to an atomic. Larger than what loom can exhaust (`interleavings.rs`), but every load sees the newest
//! store: this tries the protocol, and not its orderings.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config as Settings, Runner, thread};

use crate::buffer::{Buffer, Config};
use crate::error::Error;
use crate::goal::{Goals, Strategy};
use crate::layout::{Column, DType};
use crate::ring::Rings;

/// Words of a row's one column.
const WORDS: usize = 3;
/// Environments of each of the two writers.
const EACH: usize = 2;
const LENGTH: usize = 4;
/// Rows that an environment has before anything else begins, and at the end.
const BEFORE: u64 = 2;
const AFTER: u64 = 9;
/// Rows with which trajectories begin, in even and odd environments: some are single rows, some partly overwritten. While
/// the oldest row of one environment is being overwritten, there is another row that a sampler can draw.
const STARTS: [[u64; 4]; 2] = [[0, 3, 4, 7], [0, 2, 5, 6]];
const BATCH: usize = 4;

/// Half of the schedules switch at random, half as "A Randomized Scheduler with Probabilistic Guarantees of Finding
/// Bugs" (Burckhardt et al., 2010) has it, for bugs of depth 3.
fn explore(schedules: usize, scene: impl Fn() + Send + Sync + Clone + 'static) {
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let mut settings = Settings::new();
        settings.silence_warnings = true; // That orderings are not modelled.
        Runner::new(scheduler, settings).run(scene.clone());
    };
    run(Box::new(RandomScheduler::new_from_seed(1, schedules / 2)));
    run(Box::new(PctScheduler::new_from_seed(2, 3, schedules / 2)));
}

fn words(env: usize, t: u64) -> [u64; WORDS] {
    std::array::from_fn(|word| 1000 * (env as u64 + 1) + 10 * t + word as u64)
}

fn trajectory((env, t): (usize, u64)) -> usize {
    STARTS[env % 2].iter().filter(|start| **start <= t).count()
}

/// The environment and the number of a whole row.
fn row(bytes: &[u8]) -> (usize, u64) {
    let (found, _) = bytes.as_chunks::<8>();
    let first = u64::from_ne_bytes(found[0]);
    let (env, t) = (usize::try_from(first / 1000 - 1).unwrap(), first % 1000 / 10);
    assert_eq!(words(env, t).map(u64::to_ne_bytes).as_slice(), found, "torn");
    (env, t)
}

/// A buffer, and how far its writers had come at least.
struct Scene {
    buffer: Arc<Buffer>,
    written: [AtomicU64; 2],
}

impl Scene {
    fn new() -> Arc<Self> {
        let column = Column { name: "achieved_goal".into(), dtype: DType::U64, shape: vec![WORDS] };
        let (num_envs, columns) = (2 * EACH, vec![column]);
        let config = Config { num_envs, capacity: num_envs * LENGTH, columns, seed: 3, check_finite: true, threads: 1 };
        let scene = Self { buffer: Buffer::new(config).unwrap().into(), written: [0, 0].map(AtomicU64::new) };
        (0..2).for_each(|writer| scene.write(writer, 0..BEFORE));
        Arc::new(scene)
    }

    fn write(&self, writer: usize, numbers: std::ops::Range<u64>) {
        let envs = writer * EACH..(writer + 1) * EACH;
        let mut writing = self.buffer.writer(envs.start, envs.end).unwrap();
        assert!(matches!(self.buffer.writer(envs.start, envs.end), Err(Error::Busy(_))));
        for t in numbers {
            let bytes: Vec<u8> =
                envs.clone().flat_map(|env| words(env, t)).flat_map(|word| word.to_ne_bytes()).collect();
            writing.add(1, &[&bytes], &[0, 1].map(|odd: usize| u8::from(STARTS[odd].contains(&t)))).unwrap();
            self.written[writer].store(t + 1, Relaxed);
        }
    }

    /// Samples a batch, and says how many rows were of the last that were written.
    fn sample(&self, strategy: Strategy) -> usize {
        let names = ["achieved_goal", "next_achieved_goal", "goal", "offset"].map(String::from);
        let request = self.buffer.request(Goals::new(0.9, &[(strategy, 1.0)]).unwrap(), &names).unwrap();
        let mut memory: Vec<Vec<u8>> = request.outputs().iter().map(|output| vec![0; BATCH * output.bytes()]).collect();
        let mut outputs: Vec<&mut [u8]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
        let before = self.written.each_ref().map(|written| written.load(Relaxed));
        self.buffer.sample(&request, BATCH, 1, None, &mut outputs).unwrap();
        let mut newest = 0;
        for at in 0..BATCH {
            let [(env, t), next, (goal_env, goal)] =
                [0, 1, 2].map(|column| row(&memory[column][at * WORDS * 8..][..WORDS * 8]));
            let offset = i32::from_ne_bytes(*memory[3][at * 4..].first_chunk().unwrap());
            assert!(t + LENGTH as u64 >= before[env / EACH], "stale");
            assert_eq!((next, trajectory(next)), ((env, t + 1), trajectory((env, t))), "foreign");
            if strategy == Strategy::Random {
                assert_eq!(offset, 0);
            } else {
                assert_eq!((goal_env, u64::try_from(offset)), (env, Ok(goal - t)), "foreign");
                assert!(offset > 0 && trajectory((env, goal)) == trajectory((env, t)), "foreign");
            }
            newest += usize::from(goal + 1 == AFTER);
        }
        newest
    }

    /// Every slot holds the row that it should, and knows how many follow.
    fn check_rings(&self, rings: &Rings) {
        for env in 0..2 * EACH {
            assert_eq!(rings.published(env), AFTER);
            for slot in 0..LENGTH {
                let place = rings.find(env, slot).unwrap();
                let mut bytes = [0; WORDS * 8];
                rings.read(rings.record(place), self.buffer.layout().fields()[0], &mut bytes);
                assert_eq!((row(&bytes), AFTER - 1 - u64::from(place.newer)), ((env, place.t), place.t), "lost");
                let follow =
                    (place.t + 1..AFTER).filter(|t| trajectory((env, *t)) == trajectory((env, place.t))).count();
                assert_eq!(rings.later(place) as usize, follow, "lost");
            }
        }
    }

    /// Writes all rows, with a thread for each writer and for each of the others, and looks at what is left.
    fn play<T: Send + 'static>(others: usize, other: impl Fn(&Self, usize) -> T + Clone + Send + 'static) -> Vec<T> {
        let scene = Self::new();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.write(writer, BEFORE..AFTER))
            })
            .collect();
        let others: Vec<_> = (0..others)
            .map(|number| {
                let (scene, other) = (Arc::clone(&scene), other.clone());
                thread::spawn(move || other(&scene, number))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let found = others.into_iter().map(|other| other.join().unwrap()).collect();
        scene.check_rings(&scene.buffer.rings);
        found
    }
}

#[test]
fn samplers_beside_writers_see_whole_rows() {
    const STRATEGIES: [Strategy; 5] =
        [Strategy::Geometric, Strategy::Uniform, Strategy::Final, Strategy::Next, Strategy::Random];
    let (played, newest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&played), Arc::clone(&newest));
    explore(100_000, move || {
        let strategy = STRATEGIES[played.fetch_add(1, Relaxed) % STRATEGIES.len()];
        let found = Scene::play(2, move |scene, _| scene.sample(strategy));
        newest.fetch_add(found.into_iter().sum(), Relaxed);
    });
    let (played, newest) = (counts.0.load(Relaxed), counts.1.load(Relaxed));
    // Samplers met the writers early and late.
    assert!(played == 100_000 && (played / 10..8 * played).contains(&newest), "{played} {newest}");
}

#[test]
#[should_panic(expected = "torn")]
fn a_sampler_that_does_not_look_at_the_claim_sees_torn_rows() {
    explore(10_000, || {
        Scene::play(1, |scene, _| {
            let rings = &scene.buffer.rings;
            let place = rings.find(0, 0).unwrap();
            let mut bytes = [0; WORDS * 8];
            rings.read(rings.record(place), scene.buffer.layout().fields()[0], &mut bytes);
            row(&bytes);
        });
    });
}

#[test]
fn a_snapshot_beside_writers_is_a_moment_of_each_ring_or_refused() {
    let (saved, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&saved), Arc::clone(&refused));
    explore(1000, move || {
        let (saved, refused) = (Arc::clone(&saved), Arc::clone(&refused));
        Scene::play(1, move |scene, _| {
            let path = std::env::temp_dir().join(format!("crl-replay-schedules-{}", std::process::id()));
            match scene.buffer.save(&path) {
                Err(Error::Busy(_)) => refused.fetch_add(1, Relaxed),
                done => {
                    done.unwrap();
                    let loaded = Buffer::load(&path, 1).unwrap();
                    for env in 0..2 * EACH {
                        let n = loaded.rings.published(env);
                        // Where rows were overwritten before they were copied, those that are left count from 0.
                        let mut skipped = None;
                        for place in (0..LENGTH).filter_map(|slot| loaded.rings.find(env, slot)) {
                            let mut bytes = [0; WORDS * 8];
                            loaded.rings.read(loaded.rings.record(place), loaded.layout().fields()[0], &mut bytes);
                            let (found, t) = row(&bytes);
                            let skipped = *skipped.get_or_insert(t - place.t);
                            assert_eq!((found, t), (env, place.t + skipped));
                            assert!(skipped == 0 || n < LENGTH as u64, "nothing is missing");
                            let follow = (t + 1..n + skipped)
                                .filter(|later| trajectory((env, *later)) == trajectory((env, t)))
                                .count();
                            assert_eq!(loaded.rings.later(place) as usize, follow);
                        }
                    }
                    saved.fetch_add(1, Relaxed)
                }
            };
        });
    });
    assert!(counts.0.load(Relaxed) > 0 && counts.1.load(Relaxed) > 0, "{counts:?}");
}
