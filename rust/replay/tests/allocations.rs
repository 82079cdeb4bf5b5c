//! A batch that is drawn into memory of the caller's takes no memory from the system: `cargo test --test allocations`.
#![allow(unsafe_code, missing_docs)]
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::{Column, DType};
use crl_replay::{Buffer, Config};

/// The system's allocator, and how often it was asked.
struct Counting;

thread_local! {
    /// By this thread alone: the harness has others.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_batch_and_a_row_take_no_memory() {
    let names = ["observation", "action", "achieved_goal"];
    let column = |(name, width): (&str, usize)| Column { name: name.into(), dtype: DType::F32, shape: vec![width] };
    let columns = names.into_iter().zip([29, 8, 2]).map(column).collect();
    let config = Config { num_envs: 16, capacity: 16_000, columns, seed: 0, check_finite: true, threads: 1 };
    let buffer = Buffer::new(config).unwrap();
    let rows = [29, 8, 2].map(|width| vec![0; width * 4 * 16]);
    let rows = rows.each_ref().map(|bytes| &bytes[..]);
    let starts = [0; 16];
    buffer.add(1, &rows, &starts).unwrap();
    let goals = Goals::new(0.99, &[(Strategy::Geometric, 0.5), (Strategy::Random, 0.5)]).unwrap();
    let request = buffer.request(goals, &["observation", "action", "goal", "offset"].map(String::from)).unwrap();
    let mut outputs = [29, 8, 2, 1].map(|width| vec![0; width * 4 * 1024]);
    let mut outputs = outputs.each_mut().map(|bytes| &mut bytes[..]);

    let before = ASKED.get();
    for _ in 0..100 {
        buffer.add(1, &rows, &starts).unwrap();
    }
    for _ in 0..10 {
        buffer.sample(&request, 1024, 1, None, &mut outputs).unwrap();
    }
    assert_eq!(ASKED.get() - before, 0);
    // The counter does count.
    assert!(ASKED.get() > 0);
}
