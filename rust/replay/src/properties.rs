//! Random programs of pushes against a model that forgets nothing: what is stored, what follows what, and that
//! samples and snapshots tell the same.
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::buffer::{Buffer, Config};
use crate::error::Error;
use crate::goal::{Goals, Strategy as Goal};
use crate::layout::{Column, DType};

/// Bytes of the second column: no multiple of a word.
const BYTES: usize = 11;
const BATCH: usize = 64;

/// One call: the environments that it writes, all through the buffer itself, and which of its rows begin a trajectory.
#[derive(Clone, Debug)]
struct Call {
    range: Option<(usize, usize)>,
    starts: Vec<bool>,
}

/// A row as it was pushed.
#[derive(Clone, Copy)]
struct Row {
    /// Of all rows of all environments.
    id: u64,
    trajectory: u64,
}

/// A buffer, and all rows that were ever pushed to it.
struct Pair {
    buffer: Arc<Buffer>,
    length: usize,
    /// The number of each environment's first row.
    base: u64,
    pushed: Vec<Vec<Row>>,
}

fn bytes_of(id: u64) -> [u8; BYTES] {
    std::array::from_fn(|at| id.to_le_bytes()[at % 8] ^ u8::try_from(at).unwrap())
}

impl Pair {
    /// Empty rings, whose rows are numbered from `base` on.
    fn new(envs: usize, length: usize, base: u64) -> Self {
        let column = |name: &str, dtype, shape: &[usize]| Column { name: name.into(), dtype, shape: shape.into() };
        let columns = vec![column("achieved_goal", DType::U64, &[]), column("bytes", DType::U8, &[BYTES])];
        let capacity = envs * length;
        let config = Config { num_envs: envs, capacity, columns, seed: 7, check_finite: true, threads: 1 };
        let buffer = Arc::new(Buffer::new(config).unwrap());
        (0..envs).for_each(|env| buffer.rings.start_at(env, base));
        let mut pair = Self { buffer, length, base, pushed: vec![vec![]; envs] };
        if base > 0 {
            // Numbering may begin beyond 0 only where a ring's worth of rows follows, as when a snapshot is read.
            pair.call(&Call { range: None, starts: vec![false; capacity] });
        }
        pair
    }

    fn call(&mut self, call: &Call) {
        let (first, last) = call.range.unwrap_or((0, self.pushed.len()));
        let envs = last - first;
        let steps = call.starts.len() / envs;
        let starts: Vec<u8> = call.starts[..steps * envs].iter().map(|starts| u8::from(*starts)).collect();
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for (row, starts) in starts.iter().enumerate() {
            let env = first + row % envs;
            let rows = &mut self.pushed[env];
            let id = (env as u64) << 32 | rows.len() as u64;
            let trajectory = rows.last().map_or(0, |last| last.trajectory + u64::from(*starts));
            rows.push(Row { id, trajectory });
            ids.extend(id.to_ne_bytes());
            bytes.extend(bytes_of(id));
        }
        match call.range {
            None => self.buffer.add(steps, &[&ids, &bytes], &starts),
            Some((first, last)) => self.buffer.writer(first, last).unwrap().add(steps, &[&ids, &bytes], &starts),
        }
        .unwrap();
    }

    /// The rows that are still stored, from the oldest to the newest.
    fn stored(&self, env: usize) -> &[Row] {
        let rows = &self.pushed[env];
        &rows[rows.len().saturating_sub(self.length)..]
    }

    /// Every slot holds the row that it should, and knows how many follow.
    fn check_rings(&self) {
        let rings = &self.buffer.rings;
        let (mut rows, mut trajectories) = (0, 0);
        for (env, pushed) in self.pushed.iter().enumerate() {
            let stored = self.stored(env);
            rows += stored.len() as u64;
            trajectories += match stored {
                [] => 0,
                [oldest, ..] => stored[stored.len() - 1].trajectory - oldest.trajectory + 1,
            };
            let written = self.base + pushed.len() as u64;
            assert_eq!(rings.published(env), written);
            let mut found = vec![false; stored.len()];
            for slot in 0..self.length {
                let Some(place) = rings.find(env, slot) else { continue };
                let newer = place.newer as usize;
                let at = stored.len() - 1 - newer;
                assert!(!std::mem::replace(&mut found[at], true), "one row in two slots");
                assert_eq!((place.t, place.t % self.length as u64), (written - 1 - newer as u64, slot as u64));
                assert!(rings.lives(env, place.t));
                assert!(place.t < self.length as u64 || !rings.lives(env, place.t - self.length as u64));
                let follow = stored[at + 1..].iter().filter(|row| row.trajectory == stored[at].trajectory).count();
                assert_eq!(rings.later(place) as usize, follow);
            }
            assert!(found.iter().all(|found| *found), "a stored row was not found");
        }
        assert_eq!((self.buffer.rows(), self.buffer.trajectories()), (rows, trajectories));
    }

    /// Draws the next batch, of one goal: rows are stored and whole, and goals are where the offset says.
    fn check_sample(&self, goal: Goal) {
        let names = ["achieved_goal", "next_achieved_goal", "goal", "offset", "bytes", "goal_bytes"];
        let request = self.buffer.request(Goals::new(0.7, &[(goal, 1.0)]).unwrap(), &names.map(String::from)).unwrap();
        let mut memory: Vec<Vec<u8>> = request.outputs().iter().map(|output| vec![0; BATCH * output.bytes()]).collect();
        let mut outputs: Vec<&mut [u8]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
        let sampled = self.buffer.sample(&request, BATCH, 1, None, &mut outputs);
        let pairs = |env| self.stored(env).windows(2).any(|rows| rows[0].trajectory == rows[1].trajectory);
        if !(0..self.pushed.len()).any(pairs) {
            assert!(matches!(sampled, Err(Error::Empty(_))), "{sampled:?}");
            return;
        }
        sampled.unwrap();
        let id = |output: usize, row: usize| u64::from_ne_bytes(memory[output][row * 8..][..8].try_into().unwrap());
        // The environment of a stored row, and where it lies among the stored rows.
        let find = |id: u64| {
            let env = usize::try_from(id >> 32).unwrap();
            (env, self.stored(env).iter().position(|row| row.id == id).expect("sampled a row that is not stored"))
        };
        for row in 0..BATCH {
            let (env, at) = find(id(0, row));
            let stored = self.stored(env);
            let last = stored.iter().rposition(|row| row.trajectory == stored[at].trajectory).unwrap();
            let offset = i32::from_ne_bytes(memory[3][row * 4..][..4].try_into().unwrap());
            let offset = usize::try_from(offset).unwrap();
            assert_eq!((find(id(1, row)), last > at), ((env, at + 1), true));
            let (goal_env, goal_at) = find(id(2, row));
            match goal {
                Goal::Random => assert_eq!(offset, 0),
                _ => assert_eq!((goal_env, goal_at), (env, at + offset)),
            }
            match goal {
                Goal::Geometric | Goal::Uniform => assert!((1..=last - at).contains(&offset)),
                Goal::Final => assert_eq!(offset, last - at),
                Goal::Next => assert_eq!(offset, 1),
                Goal::Random => {}
            }
            assert_eq!(memory[4][row * BYTES..][..BYTES], bytes_of(id(0, row)));
            assert_eq!(memory[5][row * BYTES..][..BYTES], bytes_of(id(2, row)));
        }
    }

    fn check(&self) {
        self.check_rings();
        for goal in [Goal::Geometric, Goal::Uniform, Goal::Final, Goal::Next, Goal::Random] {
            self.check_sample(goal);
        }
    }
}

/// Environments, rows of a ring, the number of the first row, and calls. The narrow division by the length ends at
/// 2³²: some programs cross it.
fn programs() -> impl Strategy<Value = (usize, usize, u64, Vec<Call>)> {
    let base = prop_oneof![3 => Just(0), 1 => 1..20_u64, 1 => u64::from(u32::MAX) - 20..u64::from(u32::MAX)];
    (1..=3_usize, 2..=6_usize, base).prop_flat_map(|(envs, length, base)| {
        let range = (0..envs).prop_flat_map(move |first| (Just(first), first + 1..=envs));
        let starts = vec(prop::bool::weighted(0.3), 0..12);
        let call = (prop::option::of(range), starts).prop_map(|(range, starts)| Call { range, starts });
        (Just(envs), Just(length), Just(base), vec(call, 0..12))
    })
}

/// Failures are minimal programs, to be made tests of their own: no file of seeds is kept.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_buffer_is_the_last_rows_of_its_model((envs, length, base, calls) in programs()) {
        let mut pair = Pair::new(envs, length, base);
        pair.check();
        for call in &calls {
            pair.call(call);
            pair.check();
        }
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn a_snapshot_gives_the_buffer_back((envs, length, base, calls) in programs(), more in programs()) {
        let mut pair = Pair::new(envs, length, base);
        for call in &calls {
            pair.call(call);
        }
        let path = std::env::temp_dir().join(format!("crl-replay-properties-{}", std::process::id()));
        pair.buffer.save(&path).unwrap();
        let loaded = Buffer::load(&path, 1);
        std::fs::remove_file(&path).unwrap();
        let saved = std::mem::replace(&mut pair.buffer, Arc::new(loaded.unwrap()));
        prop_assert_eq!(pair.buffer.next_batch(), saved.next_batch());
        pair.check();
        // It can be written on: whether the first row continues a trajectory is known.
        for call in more.3.iter().filter(|call| call.range.is_none_or(|(_, last)| last <= envs)) {
            pair.call(call);
            pair.check();
        }
    }
}
