//! What the core takes for a batch, for its parts, and for a row that comes in: `make bench`.
//!
//! Rows are those of an ant (observation 29, action 8, goal 2), 1000 to a trajectory; few enough for a cache, where the
//! instructions count, and many, where memory does. Beside them the gather alone, which is as fast as it gets.
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crl_replay::buffer::{Buffer, Config};
use crl_replay::geometric::{Geometric, Table};
use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::{Column, DType};
use crl_replay::limit::{self, Part};
use crl_replay::rng::Stream;

const WIDTHS: [usize; 3] = [29, 8, 2];
const BYTES: [usize; 3] = [116, 32, 8];
const EPISODE: usize = 1000;
const BATCH: usize = 1024;
const SIZES: [usize; 2] = [4_000, 1_024_000];

fn empty(num_envs: usize, capacity: usize) -> Buffer {
    let column = |(name, width): (&str, usize)| Column { name: name.into(), dtype: DType::F32, shape: vec![width] };
    let columns = ["observation", "action", "achieved_goal"].into_iter().zip(WIDTHS).map(column).collect();
    Buffer::new(Config { num_envs, capacity, columns, seed: 0, check_finite: true, threads: 1 }).unwrap()
}

fn add(buffer: &Buffer, num_envs: usize, first: usize, steps: usize) {
    let columns = BYTES.map(|bytes| vec![1_u8; bytes * steps * num_envs]);
    let starts: Vec<u8> = (0..steps * num_envs).map(|i| u8::from((first + i / num_envs) % EPISODE == 0)).collect();
    buffer.add(steps, &columns.each_ref().map(|column| &column[..]), &starts).unwrap();
}

fn filled(rows: usize) -> Buffer {
    let num_envs = (rows / 4000).clamp(1, 256);
    let buffer = empty(num_envs, rows);
    (0..rows / num_envs).step_by(100).for_each(|first| add(&buffer, num_envs, first, 100));
    buffer
}

fn sampling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sample 1024");
    group.throughput(Throughput::Elements(BATCH as u64));
    for rows in SIZES {
        let buffer = filled(rows);
        for (strategy, name) in [(Strategy::Geometric, "geometric"), (Strategy::Uniform, "uniform")] {
            let goals = Goals::new(0.99, &[(strategy, 1.0)]).unwrap();
            let names = ["observation", "action", "goal", "offset"].map(String::from);
            let request = buffer.request(goals, &names).unwrap();
            let mut memory = [116, 32, 8, 4].map(|bytes| vec![0_u8; bytes * BATCH]);
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| {
                    let mut outputs = memory.each_mut().map(|memory| &mut memory[..]);
                    buffer.sample(&request, BATCH, 1, None, &mut outputs).unwrap()
                });
            });
        }
        let arrays = BYTES.map(|bytes| limit::memory(bytes * rows));
        let mut words = Stream::new(0, 0).row(0);
        let indices: Vec<u32> = (0..BATCH * 64).map(|_| u32::try_from(words.below(rows as u64)).unwrap()).collect();
        let mut memory = BYTES.map(|bytes| vec![0_u8; bytes * BATCH]);
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("the gather alone, tuned", rows), |bencher| {
            bencher.iter(|| {
                turn = (turn + BATCH) % indices.len();
                let part = |k: usize| Part { rows: &arrays[k], bytes: BYTES[k], indices: &indices[turn..turn + BATCH] };
                let mut outputs = memory.each_mut().map(|memory| &mut memory[..]);
                limit::gather(&[part(0), part(1), part(2)], BATCH, true, &mut outputs).unwrap();
            });
        });
    }
}

fn law(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("draw");
    let law = Geometric::new(0.99).unwrap();
    let table = Table::new(law);
    let mut words = Stream::new(0, 0).row(0);
    group.bench_function("two words", |bencher| bencher.iter(|| words.word() ^ words.word()));
    group.bench_function("an offset, closed form", |bencher| bencher.iter(|| law.offset(words.unit(), black_box(900))));
    group.bench_function("an offset, table", |bencher| bencher.iter(|| table.offset(words.unit(), black_box(900))));
}

fn adding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("add");
    group.throughput(Throughput::Elements(256));
    let buffer = empty(256, 256_000);
    let columns = BYTES.map(|bytes| vec![1_u8; bytes * 256]);
    group.bench_function("256 rows", |bencher| {
        bencher.iter(|| buffer.add(1, &columns.each_ref().map(|column| &column[..]), &[0; 256]).unwrap());
    });
}

criterion_group!(benches, sampling, law, adding);
criterion_main!(benches);
