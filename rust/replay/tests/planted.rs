//! Undefined behaviour and a leak on purpose, in memory that the buffer's own code reads and fills: the sanitizers must
//! find each, or their silence about everything else would mean nothing. `make tsan` and `make asan` run these and
//! expect reports.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crl_replay::goal::{Goals, Strategy};
use crl_replay::layout::{Column, DType};
use crl_replay::sample::Request;
use crl_replay::{Buffer, Config};

const BATCH: usize = 256;

fn buffer() -> (Buffer, Request) {
    let column = Column { name: "achieved_goal".into(), dtype: DType::U64, shape: vec![] };
    let config = Config { num_envs: 1, capacity: 8, columns: vec![column], seed: 0, check_finite: true, threads: 1 };
    let buffer = Buffer::new(config).unwrap();
    buffer.add(8, &[&[0; 64]], &[0; 8]).unwrap();
    let goals = Goals::new(0.9, &[(Strategy::Next, 1.0)]).unwrap();
    let request = buffer.request(goals, &["achieved_goal".into()]).unwrap();
    (buffer, request)
}

#[test]
#[ignore = "undefined behaviour on purpose, for make tsan"]
fn two_samplers_fill_the_same_memory() {
    let (buffer, request) = buffer();
    let mut memory = vec![0; BATCH * 8];
    let (address, begun) = (memory.as_mut_ptr() as usize, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (buffer, request, begun) = (&buffer, &request, &begun);
            scope.spawn(move || {
                begun.fetch_add(1, Relaxed);
                while begun.load(Relaxed) < 2 {
                    std::thread::yield_now(); // One after the other would be no race.
                }
                // SAFETY: none. Both threads write to this memory at once.
                let memory = unsafe { std::slice::from_raw_parts_mut(address as *mut u8, BATCH * 8) };
                for _ in 0..500 {
                    buffer.sample(request, BATCH, 1, None, &mut [&mut *memory]).unwrap();
                    std::thread::yield_now();
                }
            });
        }
    });
}

#[test]
#[ignore = "undefined behaviour on purpose, for make asan"]
fn a_batch_ends_beyond_its_memory() {
    let (buffer, request) = buffer();
    let mut memory = vec![0_u8; (BATCH - 1) * 8];
    // SAFETY: none. The last row lies beyond the end.
    let beyond = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr(), BATCH * 8) };
    buffer.sample(&request, BATCH, 1, None, &mut [beyond]).unwrap();
}

#[test]
#[ignore = "undefined behaviour on purpose, for make asan"]
fn rows_are_read_after_they_were_freed() {
    let (buffer, _) = buffer();
    let rows = vec![0_u8; 8];
    // SAFETY: none. The memory is given back before it is read.
    let freed = unsafe { std::slice::from_raw_parts(rows.as_ptr(), 8) };
    drop(rows);
    buffer.add(1, &[freed], &[0]).unwrap();
}

#[test]
#[ignore = "a leak on purpose, for make asan"]
fn a_buffer_is_never_given_back() {
    std::mem::forget(Box::new(buffer()));
}
