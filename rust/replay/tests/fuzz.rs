//! Mutated and random files for the two readers: nothing may panic, take more memory than the file justifies, or take
//! long. A moment of it by default; `make fuzz MINUTES=5` goes on.
//!
//! Checksums would stop nearly every mutation at the door, so most of them are sealed again. Memory is counted as if
//! nothing were ever freed, but for the zeros of which rings are made: they cost nothing until rows come in. Of those
//! the system refuses to give more than 1 GiB at a time.
#![allow(clippy::cast_possible_truncation)] // Random numbers.
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::{Column, DType};
use crl_replay::{Buffer, Config, Error};

const MIB: usize = 1 << 20;

/// The system's allocator, and the bytes that it ever gave.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator unchanged, or refused with null.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > 1024 * MIB {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A small generator of random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A number at which programs go wrong.
    fn number(&mut self) -> u64 {
        let power = 1_u64 << self.below(64);
        [0, 1, power, power - 1, power.wrapping_neg(), u64::MAX, self.next()][self.below(7)]
    }
}

fn mutate(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        // Heads are where lengths are: of the file, and of each page of a file of rows.
        let page = random.below(data.len() / 4096 + 1) * 4096;
        let near = [16, 64, 256, data.len()][random.below(4)].min(data.len() - page);
        let at = (page + random.below(near)).min(data.len().saturating_sub(1));
        let numbers = if data.len() < 4096 { 0 } else { 6 }; // A file of rows is refused when its length changes.
        match random.below(8 + numbers) {
            _ if data.is_empty() => data.extend_from_slice(other),
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.next() as u8,
            2 | 3 => {
                let number = random.number().to_le_bytes();
                let bytes = (1 << random.below(4)).min(data.len() - at);
                data[at..at + bytes].copy_from_slice(&number[..bytes]);
            }
            4 => data.truncate(at),
            5 => drop(data.drain(at..(at + 1 + random.below(16)).min(data.len()))),
            6 => {
                let bytes: Vec<u8> = (0..=random.below(16)).map(|_| random.next() as u8).collect();
                data.splice(at..at, bytes);
            }
            7 => {
                let from = random.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => {
                let at = at / 8 * 8;
                let bytes = 8.min(data.len() - at);
                data[at..at + bytes].copy_from_slice(&random.number().to_le_bytes()[..bytes]);
            }
        }
    }
}

/// Makes checksums right where a reader would look for them; `blocks` follow the header of a snapshot.
fn seal(data: &mut [u8], blocks: bool) {
    let word = |data: &[u8], at: usize| data.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    let crc = |index: u64, data: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&index.to_le_bytes());
        hasher.update(data);
        hasher.finalize().to_le_bytes()
    };
    let Some(length) = word(data, 12) else { return };
    let mut at = 20 + length as usize;
    let Some(sum) = data.get(20..at).map(|header| crc(0, header)) else { return };
    data[16..20].copy_from_slice(&sum);
    for index in (0..).take_while(|_| blocks) {
        let Some(length) = word(data, at) else { return };
        let Some(sum) = data.get(at + 8..at + 8 + length as usize).map(|block| crc(index, block)) else { return };
        data[at + 4..at + 8].copy_from_slice(&sum);
        at += 8 + length as usize;
    }
}

fn config(num_envs: usize, length: usize, shape: &[usize]) -> Config {
    let column = |name: &str, dtype, shape: &[usize]| Column { name: name.into(), dtype, shape: shape.into() };
    let columns = vec![column("achieved_goal", DType::F32, &[2]), column("image", DType::U8, shape)];
    Config { num_envs, capacity: num_envs * length, columns, seed: 3, check_finite: false, threads: 1 }
}

fn add(buffer: &Buffer, steps: usize) -> Result<(), Error> {
    let rows = steps * buffer.config().num_envs;
    let columns: Vec<Vec<u8>> = buffer.layout().fields().iter().map(|field| vec![1; rows * field.bytes]).collect();
    let starts: Vec<u8> = (0..rows).map(|row| u8::from(row % 7 == 0)).collect();
    buffer.add(steps, &columns.iter().map(Vec::as_slice).collect::<Vec<_>>(), &starts)
}

/// Uses what a reader took for a buffer.
fn exercise(buffer: &Buffer) {
    let _ = (buffer.rows(), buffer.rows_written(), buffer.trajectories());
    let row: usize = buffer.layout().fields().iter().map(|field| field.bytes).sum();
    if row * buffer.config().num_envs > MIB {
        return;
    }
    if buffer.layout().find("achieved_goal").is_some() {
        for goal in [Strategy::Geometric, Strategy::Final, Strategy::Random] {
            let goals = Goals::new(0.9, &[(goal, 1.0)]).unwrap();
            let request = buffer.request(goals, &["goal", "offset"].map(String::from)).unwrap();
            let mut memory: Vec<Vec<u8>> = request.outputs().iter().map(|output| vec![0; 8 * output.bytes()]).collect();
            let mut outputs: Vec<&mut [u8]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
            let _ = buffer.sample(&request, 8, 1, None, &mut outputs);
        }
    }
    add(buffer, 2).unwrap();
}

/// A corpus for one reader.
struct Target {
    path: PathBuf,
    corpus: Vec<Vec<u8>>,
    blocks: bool,
    read: fn(&Path) -> Result<Buffer, Error>,
    accepted: u64,
    slowest: Duration,
    largest: usize,
}

impl Target {
    fn new(path: PathBuf, blocks: bool, read: fn(&Path) -> Result<Buffer, Error>) -> Self {
        let (slowest, largest) = (Duration::ZERO, 0);
        Self { path, corpus: Vec::new(), blocks, read, accepted: 0, slowest, largest }
    }

    fn run(&mut self, seed: u64) {
        let mut random = Random(seed);
        let mut data = match random.below(50) {
            0 => (0..random.below(600)).map(|_| random.next() as u8).collect(),
            _ => self.corpus[random.below(self.corpus.len())].clone(),
        };
        let other = random.below(self.corpus.len());
        mutate(&mut random, &mut data, &self.corpus[other]);
        if random.below(5) > 0 {
            seal(&mut data, self.blocks);
        }
        fs::write(&self.path, &data).unwrap();

        let before = TAKEN.load(Relaxed);
        let started = Instant::now();
        let read = (self.read)(&self.path);
        let (took, taken) = (started.elapsed(), TAKEN.load(Relaxed) - before);
        assert!(
            took < Duration::from_secs(1) && taken <= data.len() + 64 * MIB,
            "seed {seed}: {took:?}, {taken} bytes"
        );
        (self.slowest, self.largest) = (self.slowest.max(took), self.largest.max(taken));
        if let Ok(buffer) = read {
            self.accepted += 1;
            exercise(&buffer);
        }
    }
}

fn snapshots(folder: &Path) -> Target {
    let mut target = Target::new(folder.join("snapshot"), true, |path| Buffer::load(path, 1));
    for (envs, length, shape, steps) in [(1, 3, 1, 0), (1, 3, 1, 2), (3, 4, 5, 9), (2, 50, 20, 30), (40, 2, 1, 1)] {
        let buffer = Buffer::new(config(envs, length, &[shape])).unwrap();
        add(&buffer, steps).unwrap();
        buffer.save(&target.path).unwrap();
        target.corpus.push(fs::read(&target.path).unwrap());
    }
    target
}

fn row_files(folder: &Path) -> Target {
    let mut target = Target::new(folder.join("rows"), false, |path| Buffer::open(path, config(2, 4, &[5])));
    for steps in [0, 3, 9] {
        let buffer = (target.read)(&target.path).unwrap();
        add(&buffer, steps).unwrap();
        drop(buffer);
        let whole = fs::read(&target.path).unwrap();
        fs::remove_file(&target.path).unwrap();
        target.corpus.push(whole);
    }
    target
}

/// Where files are only memory, if there is such a place.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let folder = folder.join(format!("crl-replay-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn no_file_breaks_a_reader() {
    let setting = |name: &str| std::env::var(name).ok();
    let minutes = setting("FUZZ_MINUTES").map_or(1.0 / 60.0, |text| text.parse().expect("FUZZ_MINUTES"));
    let first: u64 = setting("FUZZ_SEED").map_or(0, |text| text.parse().expect("FUZZ_SEED"));
    let time = Duration::from_secs_f64(60.0 * minutes);
    let folder = folder();
    let mut targets = [snapshots(&folder), row_files(&folder)];
    let started = Instant::now();
    let mut seed = first;
    while started.elapsed() < time {
        for target in &mut targets {
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target.run(seed)));
            assert!(run.is_ok(), "FUZZ_SEED={seed} breaks the reader of {}", target.path.display());
        }
        seed += 1;
    }
    fs::remove_dir_all(&folder).unwrap();
    for Target { path, accepted, slowest, largest, .. } in &targets {
        let (name, executions) = (path.file_name().unwrap().to_string_lossy(), seed - first);
        println!("{name}: {executions} files, {accepted} read, slowest {slowest:?}, most memory {largest} bytes");
        assert!(*accepted > 0, "{name}: not one of {executions} files was read: nothing but the door was tested");
    }
}
