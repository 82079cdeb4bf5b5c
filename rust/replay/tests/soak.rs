//! The soak program for a moment, and that it sees what it looks for.
use std::time::Duration;

use crl_replay::goal::Strategy;

use load::{Defects, Known, Seen, Soak};
use rows::Id;

#[path = "../examples/soak/latency.rs"]
mod latency;
#[path = "../examples/soak/load.rs"]
mod load;
#[path = "../examples/soak/rows.rs"]
mod rows;

#[test]
fn a_moment_of_soaking_finds_nothing() {
    for (writers, length) in [(1, 512), (4, 16)] {
        let soak = Soak::new(16, length, writers);
        let tally = soak.run(2, Duration::from_millis(700));
        assert_eq!((tally.defects, soak.audit()), (Defects::default(), Defects::default()));
        assert!(tally.sampled > 0 && tally.written > 0);
    }
}

fn row(lane: u64, number: u64) -> [Vec<u8>; 4] {
    let mut columns = <[Vec<u8>; 4]>::default();
    rows::append(lane, number, &mut columns);
    columns
}

#[test]
fn every_byte_of_a_row_counts() {
    let whole = row(3, 1234);
    let read = |columns: &[Vec<u8>; 4]| rows::read(columns.each_ref().map(Vec::as_slice));
    assert_eq!(read(&whole), Some(Id { lane: 3, number: 1234 }));
    for column in 0..4 {
        for byte in 0..whole[column].len() {
            let mut torn = whole.clone();
            torn[column][byte] ^= 1;
            assert_eq!(read(&torn), None);
        }
        let mut torn = whole.clone();
        torn[column] = row(3, 1234 + 4096)[column].clone();
        assert_eq!(read(&torn), None);
    }
}

#[test]
fn trajectories_have_the_lengths_they_should() {
    assert!(!(1..1000).any(|number| rows::starts(0, number)));
    // Between two starts of a lane other than 0: the lengths, in order, from anywhere in the cycle.
    let starts: Vec<u64> = (1..2000).filter(|number| rows::starts(5, *number)).collect();
    let lengths: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(lengths[..8].iter().sum::<u64>(), 388);
    assert_eq!(lengths[..8], lengths[8..16]);
    assert_eq!(rows::trajectory(5, starts[9]), rows::trajectory(5, starts[0]) + 9);
}

#[test]
fn wrong_rows_are_noticed() {
    let id = |number| Some(Id { lane: 0, number });
    let good = Seen { row: id(10), next: id(11), goal: id(14), offset: 4 };
    let known = |_: Id| Known { done: 15, begun: 16, length: 8 };
    let judge = |seen: Seen, goals: &[Strategy]| {
        let Defects { torn, foreign, stale, .. } = seen.judge(goals, known);
        (torn, foreign, stale)
    };
    let geometric = [Strategy::Geometric];
    assert_eq!(judge(good, &geometric), (0, 0, 0));
    for torn in [Seen { row: None, ..good }, Seen { next: None, ..good }, Seen { goal: None, ..good }] {
        assert_eq!(judge(torn, &geometric), (1, 0, 0));
    }
    let other_lane = Some(Id { lane: 1, number: 14 });
    for foreign in [
        Seen { next: id(12), ..good },
        Seen { goal: other_lane, ..good },
        Seen { goal: id(13), ..good },
        Seen { offset: 5, ..good },
        Seen { offset: 0, ..good },
        Seen { offset: -4, ..good },
    ] {
        assert_eq!(judge(foreign, &geometric), (0, 1, 0));
    }
    let start = (1..400).find(|number| rows::starts(1, *number)).unwrap();
    let id_1 = |number| Some(Id { lane: 1, number });
    let across = Seen { row: id_1(start - 1), next: id_1(start), goal: id_1(start), offset: 1 };
    let all = |_: Id| Known { done: start + 1, begun: start + 1, length: 1000 };
    assert_eq!(across.judge(&geometric, all).foreign, 1);
    assert_eq!(judge(good, &[Strategy::Final]), (0, 0, 0));
    assert_eq!(judge(Seen { goal: id(13), offset: 3, ..good }, &[Strategy::Final]), (0, 1, 0));
    assert_eq!(judge(good, &[Strategy::Next]), (0, 1, 0));
    assert_eq!(judge(good, &[Strategy::Random]), (0, 1, 0));
    assert_eq!(judge(Seen { goal: other_lane, offset: 0, ..good }, &[Strategy::Random]), (0, 0, 0));
    for stale in [
        Seen { row: id(6), next: id(7), goal: id(8), offset: 2 },
        Seen { row: id(14), next: id(15), goal: id(16), offset: 2 },
    ] {
        assert_eq!(judge(stale, &geometric), (0, 0, 1));
    }
}
