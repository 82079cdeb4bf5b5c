//! `soak MINUTES [WRITERS [SAMPLERS]]`: writers and samplers at full speed on rings of several lengths, over and over.
//!
//! Every row carries its lane, number and trajectory, and a checksum over all columns, so that a sampler can say of
//! each row it is given whether it is whole, stored, and followed by what it claims; and after each round every stored
//! row must be found. It exits with 1 on any defect.
#![allow(clippy::cast_precision_loss)] // To print: three digits of them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use load::{Defects, Soak, Tally};

mod latency;
mod load;
mod rows;

const LANES: usize = 64;
/// Rows of a ring: lapped while a block of rows is copied, now and then, and hardly ever.
const LENGTHS: [usize; 3] = [16, 256, 4096];
/// Of a round; for a tenth of it the writers are alone.
const ROUND: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((time, writers, samplers)) = parse(&arguments) else {
        eprintln!(
            "soak MINUTES [WRITERS [SAMPLERS]]: expected minutes, writers that divide {LANES}; got {arguments:?}"
        );
        return ExitCode::from(2);
    };
    soak(time, writers, samplers)
}

fn parse(arguments: &[String]) -> Option<(Duration, usize, usize)> {
    let count = |at: usize, default| arguments.get(at).map_or(Some(default), |text| text.parse::<usize>().ok());
    let minutes: f64 = arguments.first()?.parse().ok()?;
    let time = Duration::try_from_secs_f64(60.0 * minutes).ok().filter(|time| !time.is_zero())?;
    let (writers, samplers) = (count(1, 1)?, count(2, 4)?);
    (writers > 0 && LANES.is_multiple_of(writers)).then_some((time, writers, samplers))
}

fn soak(time: Duration, writers: usize, samplers: usize) -> ExitCode {
    let soaks = LENGTHS.map(|length| (length, Soak::new(LANES, length, writers)));
    let (mut alone, mut beside) = (Tally::default(), Tally::default());
    let started = Instant::now();
    let round = ROUND.min(time / 3);
    println!("{writers} writers of {LANES} lanes, {samplers} samplers, batches of {} rows", load::BATCH);
    for (number, (length, soak)) in soaks.iter().cycle().enumerate() {
        if number >= LENGTHS.len() && started.elapsed() + round > time {
            break;
        }
        alone += &soak.run(0, round / 10);
        let begun = Instant::now();
        let mut tally = soak.run(samplers, round * 9 / 10);
        let seconds = begun.elapsed().as_secs_f64();
        tally.defects += soak.audit();
        beside += &tally;
        let rate = |rows: u64| rows as f64 / 1e6 / seconds;
        println!(
            "{:5.1} min, {length:4} rows a lane: sampled {:.2} M rows/s, written {:.2} M rows/s, {:?}",
            started.elapsed().as_secs_f64() / 60.0,
            rate(tally.sampled),
            rate(tally.written),
            tally.defects
        );
    }
    println!("sampled {:.3e} rows, written {:.3e}", beside.sampled as f64, (alone.written + beside.written) as f64);
    println!("a writer's step of {} rows alone:           {}", LANES / writers, alone.latency.wall);
    println!("                      by its own clock:     {}", alone.latency.own);
    println!("                      beside the samplers:  {}", beside.latency.wall);
    println!("                      by its own clock:     {}", beside.latency.own);
    let mut defects = alone.defects;
    defects += beside.defects;
    println!("{defects:?}");
    if defects == Defects::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
